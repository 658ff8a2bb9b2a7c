// A mask over an image: brush and eraser by mouse, touch or keyboard, undo and redo, invert, clear.

import { field, segments } from "/assets/lib/controls.js";
import { h, say } from "/assets/lib/dom.js";
import { draw, scaleFor, show } from "/assets/lib/frames.js";

const PAST = 100; // masks that undo goes back to
const WIDEST = 416; // CSS pixels of the image
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** maskEditor({ onchange }) -> the image with its mask. onchange: called after each stroke. */
export function maskEditor({ onchange }) {
  let w = 1;
  let high = 1;
  let mask = new Uint8Array(1); // 1: to be filled
  let before = [];
  let after = [];
  let size = 2;
  let erasing = false;
  let at = [0, 0]; // the pixel under the brush
  let stroke = null; // where a stroke of the pointer was last

  const image = h("canvas", { width: 1, height: 1 });
  const paint = h("canvas", { class: "paint", width: 1, height: 1 });
  const brush = h("div", { class: "brush" });
  const board = h(
    "div",
    { class: "board", tabindex: 0, role: "application", "aria-label": "Mask over the image", "aria-describedby": "mask-keys" },
    image,
    paint,
    brush,
  );
  const told = h("p", { class: "unseen", role: "status" });
  const amount = h("span", { class: "soft" });
  const tool = segments({
    legend: "Tool",
    options: [
      { value: "brush", text: "Brush", label: "Brush" },
      { value: "eraser", text: "Eraser", label: "Eraser" },
    ],
    value: "brush",
    onchange: choose,
  });
  const undo = h("button", { type: "button", disabled: true, onclick: () => go(before, after) }, "Undo");
  const redo = h("button", { type: "button", disabled: true, onclick: () => go(after, before) }, "Redo");
  const invert = h("button", { type: "button", onclick: () => change(mask.map((one) => 1 - one)) }, "Invert");
  const clear = h("button", { type: "button", onclick: () => change(new Uint8Array(mask.length)) }, "Clear");
  const sizes = range("Brush size", { min: 1, max: 8, value: size }, (value) => resize(value));
  const clearness = range("See-through", { min: 0, max: 90, value: 30 }, (value) => paint.style.setProperty("opacity", 1 - value / 100));
  paint.style.setProperty("opacity", 0.7);
  const element = h(
    "div",
    { class: "masking" },
    h("div", { class: "tools", role: "toolbar", "aria-label": "Mask" }, tool.element, h("span", { class: "actions" }, undo, redo, invert, clear)),
    board,
    h("div", { class: "two" }, sizes.element, clearness.element),
    h("div", { class: "amount" }, amount, h("details", {}, h("summary", {}, "Keys"), h("p", { class: "soft", id: "mask-keys" }, "The arrows move the brush and Space paints. [ and ] change its size, B and E choose brush and eraser. Ctrl+Z undoes, Ctrl+Shift+Z redoes."))),
    told,
  );

  function choose(name) {
    erasing = name === "eraser";
    tool.set(name);
    board.classList.toggle("erasing", erasing);
  }

  function resize(next) {
    size = Math.max(1, Math.min(Number(sizes.control.max), next));
    sizes.set(size);
    place();
  }

  /** The first pixel of the brush around a point. */
  const corner = ([x, y]) => [Math.round(x - size / 2), Math.round(y - size / 2)];

  function stamp(point) {
    const [left, top] = corner(point);
    for (let j = 0; j < size; j++) {
      for (let i = 0; i < size; i++) {
        const [x, y] = [left + i, top + j];
        const far = (i + 0.5 - size / 2) ** 2 + (j + 0.5 - size / 2) ** 2 > (size / 2) ** 2;
        if (x >= 0 && y >= 0 && x < w && y < high && !(size > 3 && far)) mask[y * w + x] = erasing ? 0 : 1;
      }
    }
  }

  function line(from, to) {
    const steps = Math.max(1, Math.ceil(2 * Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]))));
    for (let i = 1; i <= steps; i++) stamp([from[0] + ((to[0] - from[0]) * i) / steps, from[1] + ((to[1] - from[1]) * i) / steps]);
  }

  const begin = () => before.push(mask.slice());

  function end() {
    if (before.at(-1).every((one, i) => one === mask[i])) before.pop();
    else {
      after = [];
      before = before.slice(-PAST);
    }
    redraw();
    onchange();
  }

  function change(next) {
    begin();
    mask = next;
    end();
  }

  function go(from, to) {
    if (!from.length) return;
    to.push(mask);
    mask = from.pop();
    redraw();
    onchange();
  }

  function redraw() {
    const pen = paint.getContext("2d");
    pen.clearRect(0, 0, w, high);
    pen.fillStyle = getComputedStyle(paint).color;
    mask.forEach((one, i) => one && pen.fillRect(i % w, Math.floor(i / w), 1, 1));
    undo.disabled = !before.length;
    redo.disabled = !after.length;
    say(amount, `${painted().toLocaleString("en")} of ${mask.length.toLocaleString("en")} pixels to fill in`);
  }

  const painted = () => mask.reduce((sum, one) => sum + one, 0);

  /** Draw the brush's outline where it is. */
  function place(point = [at[0] + 0.5, at[1] + 0.5]) {
    const [left, top] = corner(point);
    const box = { left: left / w, top: top / high, width: size / w, height: size / high };
    for (const [name, part] of Object.entries(box)) brush.style.setProperty(name, `${100 * part}%`);
    brush.classList.toggle("round", size > 3);
  }

  function point(event) {
    const box = image.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * w, ((event.clientY - box.top) / box.height) * high];
  }

  board.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    board.focus({ preventScroll: true });
    board.setPointerCapture(event.pointerId);
    begin();
    stroke = point(event);
    stamp(stroke);
    redraw();
  });
  board.addEventListener("pointermove", (event) => {
    const next = point(event);
    at = next.map((value, i) => Math.max(0, Math.min((i ? high : w) - 1, Math.floor(value))));
    place(next);
    if (!stroke) return;
    line(stroke, next);
    stroke = next;
    redraw();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    board.addEventListener(name, () => {
      if (!stroke) return;
      stroke = null;
      end();
    });
  }

  board.addEventListener("keydown", (event) => {
    const by = KEYS[event.key];
    if (by) {
      at = [Math.max(0, Math.min(w - 1, at[0] + by[0])), Math.max(0, Math.min(high - 1, at[1] + by[1]))];
      place();
      tell();
    } else if (event.key === " ") {
      begin();
      stamp([at[0] + 0.5, at[1] + 0.5]);
      end();
      tell();
    } else return;
    event.preventDefault();
  });

  function tell() {
    const here = mask[at[1] * w + at[0]] ? "to fill in" : "kept";
    say(told, `Row ${at[1] + 1}, column ${at[0] + 1}: ${here}. ${amount.textContent}.`);
  }

  function lay() {
    if (!element.clientWidth) return;
    const scale = scaleFor(w, Math.min(element.clientWidth, WIDEST));
    for (const canvas of [image, paint]) show(canvas, w, high, scale);
  }
  new ResizeObserver(lay).observe(element);

  return {
    element,
    board,
    painted,
    /** A new image, a frame of one. A mask of its size stays. */
    image(frame) {
      if (frame.w !== w || frame.h !== high) {
        [w, high] = [frame.w, frame.h];
        Object.assign(paint, { width: w, height: high });
        mask = new Uint8Array(w * high);
        [before, after] = [[], []];
        at = [Math.floor(w / 2), Math.floor(high / 2)];
        sizes.control.max = Math.max(2, Math.floor(Math.min(w, high) / 2));
        resize(Math.max(1, Math.round(Math.min(w, high) / 8)));
      }
      draw(image, frame, 0);
      lay();
      redraw();
      place();
    },
    /** The lengths of stretches of pixels, row by row: kept, to be filled, kept, … */
    lengths() {
      const found = [];
      let [value, length] = [0, 0];
      for (const one of mask) {
        if (one !== value) {
          found.push(length);
          [value, length] = [one, 0];
        }
        length++;
      }
      return [...found, length];
    },
    /** Take a mask from such lengths, if they are those of the image. */
    take(lengths) {
      if (lengths.some((one) => !Number.isInteger(one) || one < 0) || lengths.reduce((sum, one) => sum + one, 0) !== mask.length) return;
      mask = Uint8Array.from(lengths.flatMap((length, i) => Array(length).fill(i % 2)));
      redraw();
    },
    /** Keys that count wherever the focus is, but for fields of text. True where it was one. */
    key(event) {
      const control = event.ctrlKey || event.metaKey;
      if (control && event.key.toLowerCase() === "z") event.shiftKey ? go(after, before) : go(before, after);
      else if (control && event.key.toLowerCase() === "y") go(after, before);
      else if (control || event.altKey) return false;
      else if (event.key === "[") resize(size - 1);
      else if (event.key === "]") resize(size + 1);
      else if (event.key === "b" || event.key === "e") choose(event.key === "e" ? "eraser" : "brush");
      else return false;
      return true;
    },
  };
}

/** A slider with its value beside it. */
function range(label, { min, max, value }, oninput) {
  const control = h("input", { type: "range", min, max, step: 1, value });
  const shown = h("span", { class: "value" });
  function set(now) {
    control.value = now;
    say(shown, String(now));
    control.style.setProperty("--at", `${(100 * (now - control.min)) / Math.max(1, control.max - control.min)}%`);
  }
  control.addEventListener("input", () => {
    set(Number(control.value));
    oninput(Number(control.value));
  });
  set(value);
  return { ...field({ label, control, beside: [shown] }), set };
}
