// Squares of the plane on one canvas: shading, arrows, points and paths, and a cross that moves by pointer or arrow keys.

import { h } from "/assets/lib/dom.js";

const GAP = 16;
const TITLE = 40; // CSS pixels above a square
const NARROW = 560;
const PATHS = 40; // paths of one walk that are drawn
const LONG = 120; // states of a walk, above which only the last TRAIL of fewer paths are drawn
const [FEW, TRAIL] = [12, 24];
const STEP = 1 / 40; // of the square's half side, for an arrow key

/**
 * plane({ label, onact, onmove }) -> { element, show(scene), cross }.
 *
 * onact(x, y, pane) is called for a click and for Enter at the cross; onmove(x, y) when the cross moves.
 * scene: { reach, layers: Set, data, drawn, panes: [{ name, title, density, arrows, scale, states, at, drops, marks, empty }] }
 *   data: Float32Array of points; density: { side, values }; arrows: { side, values }; states: { count, n, values } of
 *   which the first `at` are drawn; drops: paths, each { at, points: [[x, y], …] }; marks: { point, x0 }; empty: a sentence.
 */
export function plane({ label, onact, onmove }) {
  const canvas = h("canvas", { class: "planes", tabindex: 0, role: "application", "aria-label": label });
  const element = h("div", { class: "planes-frame" }, canvas);
  let scene = { panes: [], layers: new Set(), reach: 3 };
  let boxes = [];
  let colours = {};
  let cross = { x: 0, y: 0, pane: 0 };
  let due = 0;
  const shades = new Map();

  function lay() {
    const width = Math.max(element.clientWidth, 200);
    const count = Math.max(scene.panes.length, 1);
    let columns = width < NARROW ? 1 : Math.min(2, count);
    if (count === 4 && width >= 1200) columns = 4;
    const rows = Math.ceil(count / columns);
    const room = columns === 1 ? Infinity : Math.max(300, (innerHeight - 330) / rows - TITLE);
    const side = Math.floor(Math.min((width - GAP * (columns - 1)) / columns, room));
    boxes = scene.panes.map((_, k) => ({ x: (k % columns) * (side + GAP), y: Math.floor(k / columns) * (side + TITLE + GAP) + TITLE, side }));
    const height = rows * (side + TITLE) + (rows - 1) * GAP;
    const wide = columns * side + (columns - 1) * GAP;
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${height}px`;
    const scale = devicePixelRatio;
    const [w, high] = [Math.round(wide * scale), Math.round(height * scale)];
    if (canvas.width !== w || canvas.height !== high) Object.assign(canvas, { width: w, height: high });
  }

  function read() {
    const style = getComputedStyle(canvas);
    colours = Object.fromEntries(["ink", "soft", "line", "card", "accent", "series-1", "series-2", "series-3", "series-4"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    colours.font = style.fontFamily;
    shades.clear();
  }

  function later() {
    if (!due) due = requestAnimationFrame(() => { due = 0; draw(); });
  }

  function draw() {
    if (!element.clientWidth) return;
    lay();
    const pen = canvas.getContext("2d");
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    scene.panes.forEach((pane, k) => drawPane(pen, pane, boxes[k], k));
  }

  function drawPane(pen, pane, { x, y, side }, k) {
    const to = ([a, b]) => [x + ((a / scene.reach + 1) / 2) * side, y + ((1 - b / scene.reach) / 2) * side];
    title(pen, pane, x, y, side);
    pen.save();
    pen.beginPath();
    pen.roundRect(x, y, side, side, 6);
    pen.fillStyle = colours.card;
    pen.fill();
    pen.clip();
    const on = (layer) => scene.layers.has(layer);
    if (on("density") && pane.density) pen.drawImage(shade(pane.density), x, y, side, side);
    if (on("data") && scene.data) dots(pen, scene.data, to, 1.1, colours.soft, 0.4);
    if (on("arrows") && pane.arrows) arrows(pen, pane, to, side);
    if (pane.states) {
      if (on("paths")) paths(pen, pane.states, pane.at, to);
      if (on("samples")) dots(pen, pane.states.values.subarray(2 * pane.states.n * pane.at, 2 * pane.states.n * (pane.at + 1)), to, 2.1, colours["series-2"], 0.85);
    }
    for (const one of pane.drops ?? []) particle(pen, one, to);
    if (scene.drawn) dots(pen, scene.drawn.flat(), to, 3, colours["series-3"], 0.9);
    if (pane.marks) mark(pen, pane.marks, to);
    if (document.activeElement === canvas && cross.pane === k) crosshair(pen, to([cross.x, cross.y]));
    if (pane.empty) sentence(pen, pane.empty, x, y, side);
    pen.restore();
    pen.strokeStyle = colours.line;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.roundRect(x + 0.5, y + 0.5, side - 1, side - 1, 6);
    pen.stroke();
  }

  function title(pen, pane, x, y, side) {
    pen.textBaseline = "alphabetic";
    pen.fillStyle = colours.ink;
    pen.font = `600 15px ${colours.font}`;
    pen.fillText(pane.name, x, y - 22, side);
    const after = pen.measureText(pane.name).width;
    pen.font = `400 15px ${colours.font}`;
    pen.fillText(pane.title, x + after + 8, y - 22, side - after - 8);
    pen.fillStyle = colours.soft;
    pen.font = `400 13px ${colours.font}`;
    pen.fillText(pane.subtitle ?? "", x, y - 6, side);
  }

  /** ln p from the largest value down to 8 nats below it, as a picture of the accent colour. */
  function shade(density) {
    const { side, values } = density;
    if (shades.has(density)) return shades.get(density);
    const made = h("canvas", { width: side, height: side });
    const image = new ImageData(side, side);
    const [red, green, blue] = channels(colours["series-1"]);
    const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        const level = Math.max(0, 1 + (values[(side - 1 - i) * side + j] - most) / 8);
        image.data.set([red, green, blue, Math.round(150 * level ** 1.6)], 4 * (i * side + j));
      }
    }
    made.getContext("2d").putImageData(image, 0, 0);
    if (shades.size > 64) shades.delete(shades.keys().next().value);
    shades.set(density, made);
    return made;
  }

  function dots(pen, values, to, radius, colour, alpha) {
    pen.globalAlpha = alpha;
    pen.fillStyle = colour;
    pen.beginPath();
    for (let i = 0; i < values.length; i += 2) {
      const [a, b] = to([values[i], values[i + 1]]);
      pen.moveTo(a + radius, b);
      pen.arc(a, b, radius, 0, 2 * Math.PI);
    }
    pen.fill();
    pen.globalAlpha = 1;
  }

  /** Arrows of length |s|/(|s| + scale), so that far scores, which grow without bound, stay within their cells. */
  function arrows(pen, { arrows: { side: count, values }, scale }, to, side) {
    const longest = (0.86 * side) / count;
    pen.strokeStyle = colours.ink;
    pen.globalAlpha = 0.62;
    pen.lineWidth = 1;
    pen.beginPath();
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < count; j++) {
        const [u, v] = [values[2 * (i * count + j)], values[2 * (i * count + j) + 1]];
        const size = Math.hypot(u, v);
        if (!(size > 0)) continue;
        const length = (longest * size) / (size + scale);
        const [dx, dy] = [(u / size) * length, (-v / size) * length];
        const [a, b] = to([((2 * j + 1) / count - 1) * scene.reach, ((2 * i + 1) / count - 1) * scene.reach]);
        const [tipX, tipY] = [a + dx / 2, b + dy / 2];
        pen.moveTo(a - dx / 2, b - dy / 2);
        pen.lineTo(tipX, tipY);
        const head = Math.min(3.5, length / 3) / length;
        pen.moveTo(tipX - head * (dx + 0.6 * dy), tipY - head * (dy - 0.6 * dx));
        pen.lineTo(tipX, tipY);
        pen.lineTo(tipX - head * (dx - 0.6 * dy), tipY - head * (dy + 0.6 * dx));
      }
    }
    pen.stroke();
    pen.globalAlpha = 1;
  }

  function paths(pen, { count, n, values }, at, to) {
    const [many, first] = count > LONG ? [FEW, Math.max(0, at - TRAIL)] : [PATHS, 0];
    pen.strokeStyle = colours["series-2"];
    pen.globalAlpha = count > LONG ? 0.6 : 0.32;
    pen.lineWidth = 1;
    pen.beginPath();
    for (let k = 0; k < Math.min(n, many); k++) {
      for (let i = first; i <= at; i++) {
        const place = to([values[2 * (n * i + k)], values[2 * (n * i + k) + 1]]);
        if (i > first) pen.lineTo(...place);
        else pen.moveTo(...place);
      }
    }
    pen.stroke();
    pen.globalAlpha = 1;
  }

  function particle(pen, { points, at }, to) {
    if (at < 0) return;
    const seen = points.slice(0, at + 1).map(to);
    pen.strokeStyle = colours["series-4"];
    pen.lineWidth = 1.8;
    pen.beginPath();
    seen.forEach((place, i) => (i ? pen.lineTo(...place) : pen.moveTo(...place)));
    pen.stroke();
    disc(pen, seen[0], 3, colours.card, colours["series-4"]);
    disc(pen, seen.at(-1), 4, colours["series-4"], colours.card);
  }

  function mark(pen, { point, x0 }, to) {
    const here = to(point);
    if (x0) {
      const there = to(x0);
      pen.strokeStyle = colours.ink;
      pen.setLineDash([4, 3]);
      pen.lineWidth = 1.2;
      pen.beginPath();
      pen.moveTo(...here);
      pen.lineTo(...there);
      pen.stroke();
      pen.setLineDash([]);
      disc(pen, there, 4, colours.card, colours.ink);
    }
    disc(pen, here, 4, colours.ink, colours.card);
  }

  function disc(pen, [a, b], radius, inside, edge) {
    pen.beginPath();
    pen.arc(a, b, radius, 0, 2 * Math.PI);
    pen.fillStyle = inside;
    pen.fill();
    pen.strokeStyle = edge;
    pen.lineWidth = 1.5;
    pen.stroke();
  }

  function crosshair(pen, [a, b]) {
    pen.strokeStyle = colours.accent;
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      pen.moveTo(a + 4 * dx, b + 4 * dy);
      pen.lineTo(a + 12 * dx, b + 12 * dy);
    }
    pen.stroke();
  }

  function sentence(pen, text, x, y, side) {
    pen.font = `400 14px ${colours.font}`;
    pen.textAlign = "center";
    const lines = [""];
    for (const word of text.split(" ")) {
      const longer = `${lines.at(-1)} ${word}`.trim();
      if (pen.measureText(longer).width > side - 48) lines.push(word);
      else lines[lines.length - 1] = longer;
    }
    const [wide, high] = [Math.max(...lines.map((line) => pen.measureText(line).width)) + 32, 20 * lines.length + 24];
    pen.globalAlpha = 0.92;
    pen.fillStyle = colours.card;
    pen.beginPath();
    pen.roundRect(x + (side - wide) / 2, y + side - high - 12, wide, high, 6);
    pen.fill();
    pen.globalAlpha = 1;
    pen.fillStyle = colours.ink;
    lines.forEach((line, i) => pen.fillText(line, x + side / 2, y + side - high + 16 + 20 * i));
    pen.textAlign = "start";
  }

  /** The place of a pointer: { x, y, pane }, or null between the squares. */
  function place({ offsetX, offsetY }) {
    const pane = boxes.findIndex(({ x, y, side }) => offsetX >= x && offsetX <= x + side && offsetY >= y && offsetY <= y + side);
    if (pane < 0) return null;
    const { x, y, side } = boxes[pane];
    return { pane, x: (2 * (offsetX - x) / side - 1) * scene.reach, y: (1 - 2 * (offsetY - y) / side) * scene.reach };
  }

  let pressed = null;
  canvas.addEventListener("pointerdown", (event) => {
    const at = place(event);
    if (!at || event.button) return;
    pressed = at;
    cross = at;
    canvas.setPointerCapture(event.pointerId);
    onact(at.x, at.y, at.pane, false);
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = pressed && place(event);
    if (at && Math.hypot(at.x - pressed.x, at.y - pressed.y) > scene.reach / 30) {
      pressed = at;
      onact(at.x, at.y, at.pane, true);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { pressed = null; });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (by) {
      event.preventDefault();
      const far = (event.shiftKey ? 5 : 1) * STEP * scene.reach;
      const within = (value) => Math.max(-scene.reach, Math.min(scene.reach, value));
      cross = { ...cross, x: within(cross.x + by[0] * far), y: within(cross.y + by[1] * far) };
      onmove(cross.x, cross.y);
      later();
    } else if (event.key === "Enter") {
      event.preventDefault();
      onact(cross.x, cross.y, cross.pane, false);
    }
  });
  for (const kind of ["focus", "blur"]) canvas.addEventListener(kind, later);
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) matchMedia(query).addEventListener("change", () => { read(); later(); });
  new ResizeObserver(later).observe(element);

  return {
    element,
    canvas,
    show(next) {
      if (!colours.font) read();
      if (next.reach !== scene.reach) cross = { ...cross, x: 0, y: 0 };
      scene = next;
      cross.pane = Math.min(cross.pane, Math.max(scene.panes.length - 1, 0));
      later();
    },
  };
}

function channels(colour) {
  const pen = h("canvas", { width: 1, height: 1 }).getContext("2d");
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data;
}
