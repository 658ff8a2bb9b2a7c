// The distances of cells over their network calls, a line for each row or column.

import { chart, cursor } from "/assets/lib/chart.js";
import { h } from "/assets/lib/dom.js";

const LINES = 4; // as many as have colours of their own

/** distances() -> { element, draw(job) }. job: { plan, request, found: events of cells, done }. */
export function distances() {
  const curve = chart({ label: "Distance by network calls", shared: cursor() });
  const legend = h("p", { class: "legend soft" });
  const element = h("section", { class: "curves", "aria-label": "Distances", hidden: true }, legend, curve.element);

  function draw({ plan: { rows, columns }, found, request, done }) {
    const there = found.filter(({ refused, distance }) => !refused && distance !== null);
    const down = ["steps", "grid"].includes(request.rows.name) || columns.length === 1;
    const lines = (down ? columns : rows).map((name, k) => {
      const own = there.filter(({ row, column }) => (down ? column : row) === k).sort((a, b) => a.calls - b.calls);
      return { name: name || "distance", x: own.map(({ calls }) => calls), y: own.map(({ distance }) => distance) };
    });
    // One number of calls makes no line.
    element.hidden = !done || lines.length > LINES || !lines.some(({ x }) => new Set(x).size > 1);
    if (element.hidden) return;
    legend.replaceChildren(...(lines.length > 1 ? lines.map(({ name }, i) => h("span", { class: `key line-${i + 1}` }, name)) : []));
    curve.draw({ series: lines, logX: true, logY: true });
  }

  return { element, draw };
}
