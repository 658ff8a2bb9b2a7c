// The table of cells: heads, samples, and below each what it cost and how far it is from the reference.

import { refusals } from "/assets/lib/controls.js";
import { h, say } from "/assets/lib/dom.js";
import { count, seconds, short } from "/assets/lib/numbers.js";
import { extentOf, paint, size } from "/assets/panels/compare/mosaic.js";

const HEAD = 120; // CSS pixels of the heads of rows
const GAP = 12;
const [LEAST, MOST] = [104, 232]; // CSS pixels of a cell

/** The time of a cell: 45 ms, 1.2 s. */
export const took = (ms) => (ms < 100 ? `${Math.round(ms)}\u00a0ms` : seconds(ms / 1000));

/**
 * table({ onpick }) -> { element, lay(of), progress(event, text), fill(event, frame), pick(place) }.
 *
 * lay: { plan, n, shapes } shows the cells of a plan before there are samples, so that nothing moves when they come;
 * shapes: the shape of a sample in each cell. onpick(i) is called when the user chooses cell i, counted along the rows.
 */
export function table({ onpick }) {
  const body = h("table", { class: "compared" });
  const box = h("div", { class: "compared-box" }, body);
  const refused = h("div", {});
  const element = h("div", {}, box, refused);
  let of = null;
  let cells = [];

  function lay(next) {
    of = next;
    const { plan } = of;
    const width = plan.columns.length;
    cells = plan.cells.map(cell);
    const heads = plan.columns.some(Boolean) ? [h("thead", {}, h("tr", {}, h("td", {}), ...plan.columns.map((text) => h("th", { scope: "col" }, text))))] : [];
    body.replaceChildren(...heads, h("tbody", {}, ...plan.rows.map((text, row) => h("tr", {}, h("th", { scope: "row" }, text), ...cells.slice(row * width, (row + 1) * width).map(({ element: one }) => one)))));
    scale();
    told();
  }

  function cell({ row, column, calls, refused: sentence }, i) {
    const { rows, columns } = of.plan;
    const name = [rows[row], columns[column]].filter(Boolean).join(", ");
    const canvas = h("canvas", { width: 1, height: 1 });
    const button = h("button", { type: "button", class: "tile", "aria-label": name, "aria-pressed": "false", disabled: true, onclick: () => onpick(i) }, canvas);
    const cost = h("span", {}, sentence ? "not possible" : count(calls, "call"));
    const far = h("span", {}, "\u00a0");
    return { name, canvas, button, cost, far, sentence, frame: null, element: h("td", {}, button, h("div", { class: "costs" }, cost, far)) };
  }

  function scale() {
    if (!of || !box.clientWidth) return;
    const room = Math.max(LEAST, Math.min(MOST, (box.clientWidth - HEAD) / of.plan.columns.length - GAP));
    cells.forEach(({ canvas }, i) => size(canvas, of.n, of.shapes[i], room));
    draw(cells);
  }

  function draw(some) {
    const extent = extentOf(cells.map(({ frame }) => frame).filter(Boolean));
    for (const { canvas, frame } of extent === of.extent ? some : cells) if (frame) paint(canvas, frame, extent);
    of.extent = extent;
  }

  function told() {
    const list = refusals(cells.map(({ name, sentence }) => ({ text: name, refused: sentence })), "of the cells not possible");
    refused.replaceChildren(...(list ? [list] : []));
  }

  new ResizeObserver(scale).observe(box);

  return {
    element,
    lay,
    /** Say how far a cell is. */
    progress({ row, column }, text) {
      say(cells[row * of.plan.columns.length + column].far, text);
    },
    /** A cell is there: its event, and its samples where it is not refused. */
    fill({ i, calls, ms, distance, refused: sentence }, frame) {
      const one = cells[i];
      Object.assign(one, { frame, sentence });
      say(one.cost, sentence ? "not possible" : `${count(calls, "call")} · ${took(ms)}`);
      say(one.far, sentence || distance === null ? "\u00a0" : `distance ${short(distance)}`);
      one.button.disabled = Boolean(sentence);
      if (sentence) told();
      else draw([one]);
    },
    pick(place) {
      cells.forEach(({ button }, i) => button.setAttribute("aria-pressed", String(i === place)));
    },
  };
}
