// What is known of the walks, and of the point that is looked at, as tables with one column a square.

import { h } from "/assets/lib/dom.js";

const NAMES = ["A", "B", "C", "D"];
const fixed = (digits) => (value) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−"));

/** A point or a vector as text. */
export const pair = (value) => (value ? `(${value.map(fixed(2)).join(", ")})` : "–");

function table(caption, columns, rows) {
  const kept = rows.filter(([, , ...values]) => values.some((value) => value !== "–" && value !== ""));
  return h(
    "table",
    { class: "figures" },
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, h("td"), ...columns.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...kept.map(([name, title, ...values]) => h("tr", {}, h("th", { scope: "row", title: title || null }, name), ...values.map((value) => h("td", {}, value))))),
  );
}

/** The figures of the last states of walks and of exact draws, which the job's last event holds; null before there are some. own: what the last column is of. */
export function figures(panes, expected, differences, t, own) {
  const columns = [...panes.map((_, k) => NAMES[k]), expected ? own : ""];
  const row = (name, title, of, last = "–") => [name, title, ...panes.map((pane, k) => (pane ? of(pane, k) : "–")), last];
  const differs = differences.some((value) => value !== null)
    ? [[`Difference from the exact score${t === null ? "" : ` at t = ${t}`}`, "Root mean square of the difference over 2,000 draws of the density, divided by that of the exact score.", ...differences.map((value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`)), ""]]
    : [];
  if (!expected) return table("Figures", columns, differs);
  return table("Figures", columns, [
    ...differs,
    row("Network calls", "", (pane) => pane.calls.toLocaleString("en"), ""),
    row("Time", "Of the walk of all samples", (pane) => `${pane.seconds.toFixed(2)} s`, ""),
    row("Shares of the components", "A sample counts for the component with the largest p(k|x).", (pane) => shares(pane.shares), shares(expected.shares)),
    row("Distance from the flow", "Root mean square distance from where the probability flow takes the same noise, by DDIM on every level.", (pane) => fixed(3)(pane.from_the_flow), ""),
    row("Mean of ln p", "Of the samples under the exact density, in nats.", (pane) => fixed(2)(pane.log_p), fixed(2)(expected.log_p)),
    row("Mean", "", (pane) => pair(pane.mean), pair(expected.mean)),
    row("Spread", "Root mean square distance from the mean.", (pane) => fixed(2)(pane.spread), fixed(2)(expected.spread)),
  ]);
}

const shares = (values) => (values ? values.map(fixed(2)).join(" · ") : "–");

/** What the squares say at a point. probes: what POST /api/field/probe said, or null. */
export function pointTable(x, y, probes) {
  const size = (value) => (value ? `${pair(value)}, length ${fixed(2)(Math.hypot(...value))}` : "–");
  return table(`At ${pair([x, y])}`, probes.map((_, k) => NAMES[k]), [
    ["t", "The level of the score.", ...probes.map((one) => (one && one.t !== null ? String(one.t) : "–"))],
    ["x̂0", "The mean of the data that could have become this point.", ...probes.map((one) => pair(one?.x0))],
    ["Score", "∇ ln p at this point", ...probes.map((one) => size(one?.score))],
    ["ln p", "Of a learned model by its probability-flow ODE.", ...probes.map((one) => (one?.log_p_refused ? one.log_p_refused : fixed(3)(one?.log_p)))],
  ]);
}
