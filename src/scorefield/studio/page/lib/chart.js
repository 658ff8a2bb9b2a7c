// Curves as SVG: linear or logarithmic axes, raw values pale and their smoothed course bold, one cursor for all charts.

import { h, say, svg } from "/assets/lib/dom.js";
import { short } from "/assets/lib/numbers.js";

const HEIGHT = 190;
const MARGIN = { right: 20, top: 8, bottom: 22 };
const LETTER = 6.7; // CSS pixels of a digit of a tick's label

/** A cursor that several charts share. */
export function cursor() {
  const charts = new Set();
  return { charts, set: (x) => charts.forEach((one) => one.at(x)) };
}

/**
 * chart({ label, shared, unit }) -> { element, draw({ series, marks, logX, logY }) }.
 *
 * series: [{ name, x, y, smooth }], y with null where there is no value. smooth: draw the course bold and the values
 * pale. marks: [{ x, text }], drawn as thin lines. unit(y) writes a value.
 */
export function chart({ label, shared, unit = short }) {
  const plot = svg("svg", { class: "plot", role: "img", tabindex: 0, "aria-label": label });
  const reading = h("span", { class: "soft" });
  const element = h("figure", { class: "chart" }, h("figcaption", {}, h("h3", {}, label), reading), plot);
  let now = null;
  let scale = null;

  function draw(what) {
    now = what;
    const width = plot.clientWidth;
    const all = what.series.flatMap(({ x, y }) => x.map((one, i) => [one, y[i]])).filter(([x, y]) => usable(x, what.logX) && usable(y, what.logY));
    if (!width) return;
    plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    if (!all.length) {
      scale = null;
      plot.replaceChildren(svg("text", { x: width / 2, y: HEIGHT / 2, class: "none", "text-anchor": "middle" }, "no values yet"));
      return;
    }
    const y = axis(all.map(([, value]) => value), what.logY, HEIGHT - MARGIN.bottom, MARGIN.top, 4);
    const left = Math.max(48, 12 + LETTER * Math.max(...y.ticks.map((t) => unit(t).length)));
    const x = axis(all.map(([value]) => value), what.logX, left, width - MARGIN.right, Math.max(2, Math.floor(width / 90)));
    scale = { x, width };
    const lines = what.series.flatMap((series, i) => {
      const kind = `line line-${(i % 4) + 1}`;
      if (!series.smooth || series.x.length < 20) return [path(series.x, series.y, x, y, what, kind)];
      return [path(series.x, series.y, x, y, what, `${kind} pale`), path(series.x, smoothed(series.y), x, y, what, kind)];
    });
    plot.replaceChildren(
      ...y.ticks.flatMap((t) => [
        svg("line", { x1: left, x2: width - MARGIN.right, y1: y.place(t), y2: y.place(t), class: "rule" }),
        svg("text", { x: left - 8, y: y.place(t) + 4, "text-anchor": "end" }, unit(t)),
      ]),
      ...x.ticks.map((t) => svg("text", { x: x.place(t), y: HEIGHT - 5, "text-anchor": "middle" }, short(t))),
      ...(what.marks ?? []).filter((mark) => usable(mark.x, what.logX)).map((mark) => svg("line", { x1: x.place(mark.x), x2: x.place(mark.x), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "mark" }, svg("title", {}, mark.text))),
      ...lines,
      svg("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" }),
    );
    read(null);
  }

  /** The values at x, or the last ones. */
  function read(at) {
    if (!now) return;
    const parts = now.series.map(({ name, x, y }) => {
      const known = x.map((one, i) => [one, y[i]]).filter(([, value]) => value !== null && value !== undefined);
      if (!known.length) return null;
      const [, value] = at === null ? known.at(-1) : known.reduce((best, one) => (Math.abs(one[0] - at) < Math.abs(best[0] - at) ? one : best));
      return `${now.series.length > 1 ? `${name} ` : ""}${unit(value)}`;
    });
    say(reading, parts.filter(Boolean).join(" · "));
  }

  function at(x) {
    const line = plot.querySelector(".cursor");
    read(x);
    if (!line || !scale) return;
    line.setAttribute("visibility", x === null ? "hidden" : "visible");
    if (x === null) return;
    const place = scale.x.place(x);
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
  }

  const one = { at };
  shared.charts.add(one);
  plot.addEventListener("pointermove", (event) => {
    if (scale) shared.set(scale.x.value(event.offsetX));
  });
  plot.addEventListener("pointerleave", () => shared.set(null));
  plot.addEventListener("blur", () => shared.set(null));
  let held = 0;
  plot.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const xs = now?.series[0]?.x;
    if (!by || !xs?.length) return;
    event.preventDefault();
    held = Math.max(0, Math.min(xs.length - 1, held + by));
    shared.set(xs[held]);
  });
  new ResizeObserver(() => now && draw(now)).observe(plot);
  return { element, draw };
}

const usable = (value, log) => Number.isFinite(value) && (!log || value > 0);

function path(xs, ys, x, y, { logX, logY }, kind) {
  let pen = "M";
  const parts = [];
  xs.forEach((value, i) => {
    if (!usable(value, logX) || !usable(ys[i], logY)) {
      if (ys[i] === null || ys[i] === undefined) return; // a value that is measured more rarely: the line goes on
      pen = "M";
      return;
    }
    parts.push(`${pen}${x.place(value).toFixed(1)} ${y.place(ys[i]).toFixed(1)}`);
    pen = "L";
  });
  return svg("path", { d: parts.length === 1 ? `${parts[0]}h.01` : parts.join(""), class: parts.length === 1 ? `${kind} dot` : kind });
}

/** A running mean with weights that fall by half over some fortieth of the values. */
function smoothed(values) {
  const keep = 0.5 ** (40 / Math.max(values.length, 40));
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return null;
    sum = keep * sum + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    return sum / weight;
  });
}

function axis(values, log, from, to, most) {
  const view = log ? Math.log10 : (value) => value;
  let low = Math.min(...values.map(view));
  let high = Math.max(...values.map(view));
  if (high - low < 1e-12) [low, high] = [low - 0.5 * (Math.abs(low) || 1), high + 0.5 * (Math.abs(high) || 1)];
  return {
    place: (value) => from + ((view(value) - low) / (high - low)) * (to - from),
    value: (place) => {
      const at = low + ((place - from) / (to - from)) * (high - low);
      return log ? 10 ** at : at;
    },
    ticks: log ? decades(low, high, most) : round(low, high, most),
  };
}

function round(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k++) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

function decades(low, high, most) {
  if (high - low < 2) {
    const all = [-1, 0, 1, 2].flatMap((k) => [1, 2, 5].map((factor) => factor * 10 ** (Math.floor(low) + k)));
    const inside = all.filter((t) => Math.log10(t) >= low - 1e-9 && Math.log10(t) <= high + 1e-9).map((t) => Number(t.toPrecision(12)));
    return inside.length > 1 ? inside : round(10 ** low, 10 ** high, most);
  }
  const every = Math.ceil((high - low) / most);
  const ticks = [];
  for (let k = Math.ceil(low); k <= high; k += every) ticks.push(10 ** k);
  return ticks;
}
