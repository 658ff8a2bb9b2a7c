// Two cells, large: side by side, under a wipe, or their difference.

import { field, segments, select } from "/assets/lib/controls.js";
import { h, icon, say } from "/assets/lib/dom.js";
import { short } from "/assets/lib/numbers.js";
import { difference, extentOf, paint, size } from "/assets/panels/compare/mosaic.js";

const ROOM = 400; // CSS pixels of one of the two
const VIEWS = [{ value: "beside", text: "side by side" }, { value: "wipe", text: "wipe" }, { value: "difference", text: "difference" }];

/**
 * closer({ onclose, onother, oncopy }) -> { element, open(what), close() }.
 *
 * what: { a, b, n, shape, others: [{ value, text }], other, command }; a and b: { name, facts, frame }, b may be null.
 * others: the cells to compare with; onother(value) is called when the user chooses one.
 */
export function closer({ onclose, onother, oncopy }) {
  const heading = h("h2", {});
  const choice = h("div", {});
  const [left, right, front, back, gap] = Array.from({ length: 5 }, () => h("canvas", { width: 1, height: 1, role: "img" }));
  const named = [left, right].map(() => h("figcaption", {}));
  const pair = h("div", { class: "trio" }, h("figure", {}, left, named[0]), h("figure", {}, right, named[1]));
  const edge = h("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Wipe between the two", oninput: cut });
  const ends = [h("span", {}), h("span", {})];
  const over = h("div", { class: "wiped" }, h("div", { class: "wipe" }, back, front), edge, h("p", { class: "soft ends-of-wipe" }, ...ends));
  const apart = h("div", {}, gap);
  const note = h("p", { class: "soft", role: "status" });
  const command = h("code", { class: "command", tabindex: 0, "aria-label": "The command of this cell" });
  const views = segments({ legend: "How the two are compared", options: VIEWS, value: "beside", onchange: (value) => { view = value; draw(); } });
  const element = h(
    "section",
    { class: "detail", "aria-label": "Two cells", hidden: true },
    h("div", { class: "bar" }, heading, h("button", { type: "button", class: "round", "aria-label": "Close", onclick: onclose }, icon("close"))),
    h("div", { class: "tools" }, choice, views.element),
    pair,
    over,
    apart,
    note,
    command,
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => oncopy(of.command) }, "Copy as command")),
  );
  let of = null;
  let view = "beside";

  new ResizeObserver(() => of && !element.hidden && draw()).observe(element);

  function cut() {
    front.style.clipPath = `inset(0 ${100 - edge.value}% 0 0)`;
    edge.style.setProperty("--at", `${edge.value}%`);
  }

  function draw() {
    const { a, b, n, shape } = of;
    const images = shape.length === 3;
    const now = b && (images || view !== "difference") ? view : "beside";
    views.set(now);
    views.element.hidden = !b;
    views.element.lastChild.hidden = !images; // points have no difference to draw
    pair.hidden = now !== "beside";
    over.hidden = now !== "wipe";
    apart.hidden = now !== "difference";
    right.parentElement.hidden = !b;
    const room = Math.min(ROOM, element.clientWidth);
    for (const canvas of [left, right, front, back, gap]) size(canvas, n, shape, room);
    const extent = extentOf([a.frame, b?.frame].filter(Boolean));
    for (const [canvas, one] of [[left, a], [front, a], [right, b], [back, b]]) {
      if (!one || (canvas !== left && canvas.closest("[hidden]"))) continue;
      canvas.setAttribute("aria-label", `Samples of ${one.name}`);
      paint(canvas, one.frame, extent);
    }
    [a, b].forEach((one, i) => {
      named[i].replaceChildren(...(one ? [h("span", {}, one.name), h("span", { class: "soft" }, one.facts)] : []));
      say(ends[i], one ? `${["left", "right"][i]}: ${one.name}` : "");
    });
    cut();
    say(note, "");
    if (!b || !images) return;
    const found = difference(a.frame, b.frame);
    if (now === "difference") {
      paint(gap, found.frame, extent);
      gap.setAttribute("aria-label", `Difference between ${a.name} and ${b.name}`);
    }
    if (!found.largest) return say(note, "No value differs between the two.");
    say(note, `The two differ by ${short(Number(found.rms.toPrecision(3)))} of 255 (root mean square), at most by ${found.largest}${now === "difference" ? ", which is drawn white" : ""}.`);
  }

  return {
    element,
    open(what) {
      of = what;
      element.hidden = false;
      say(heading, of.a.name);
      say(command, of.command);
      choice.replaceChildren(...(of.others.length ? [field({ label: "Compare with", control: select(of.others, of.other, onother) }).element] : []));
      draw();
    },
    close() {
      element.hidden = true;
    },
  };
}
