// The squares at the clock's position, and the figures below them.

import { post } from "/assets/lib/api.js";
import { debounced, h, say } from "/assets/lib/dom.js";
import { ahead, fields, scaleOf } from "/assets/panels/field/fields.js";
import { modelName } from "/assets/panels/field/form.js";
import { asked, comparedAt, learnedHere, levelOf, NAMES, now, ready, usable, where } from "/assets/panels/field/now.js";
import { caption, legend, particle, whyEmpty } from "/assets/panels/field/scene.js";
import { hasLevels, isLearned } from "/assets/panels/field/state.js";
import { figures } from "/assets/panels/field/tables.js";

const LAYERS = { density: "ln p", arrows: "score", data: "data", samples: "samples", paths: "paths" };

/**
 * picture({ plane, clear, learning, playing, refuse }) -> { boxes, figures, legend, draw(), table(), measure() }.
 *
 * plane: the canvas of the squares. clear: the button that takes particles away. learning(), playing(): whether a model
 * is being learned, or the clock runs. refuse(sentence): show it.
 */
export function picture({ plane, clear, learning, playing, refuse }) {
  const layers = new Set(Object.keys(LAYERS));
  const boxes = h("fieldset", { class: "chips layers" }, h("legend", { class: "unseen" }, "Layers"), ...Object.entries(LAYERS).map(([name, text]) =>
    h("label", { class: "chip" }, h("input", { type: "checkbox", checked: true, onchange: (event) => { layers[event.target.checked ? "add" : "delete"](name); draw(); } }), h("span", {}, text))));
  const said = h("p", { class: "soft" });
  const box = h("div", { class: "figures-box" });
  const lattices = fields(() => draw());
  const fetchSoon = ahead(lattices, wanted, refuse);
  const measureSoon = debounced(measure, 200);

  function draw() {
    const { state, hands, source, walks, data, probe, drops, offers } = now;
    if (!state || !hands || !source) return;
    const i = Math.min(now.at, hands.last);
    let scale = null;
    const panes = state.panes.map((pane, k) => {
      const t = levelOf(k);
      const arrows = ready(pane) ? lattices.at("score", pane, t, where()) : null;
      if (arrows && scale === null) scale = scaleOf(arrows);
      return {
        name: NAMES[k],
        title: modelName(pane.model, offers.methods),
        subtitle: caption(pane, t),
        density: usable() ? lattices.at("density", pane, t, where()) : null,
        arrows,
        states: walks?.[k] ?? null,
        at: walks ? hands.state(k, i) : 0,
        drops: drops.map((one) => particle(one, pane, k, i, hands)),
        marks: probe ? { point: [probe.x, probe.y], x0: probe.found[k]?.x0 } : null,
        empty: whyEmpty(pane, { points: usable(), exact: source.exact, learned: learnedHere(), training: learning() }),
      };
    });
    for (const pane of panes) pane.scale = scale ?? 1;
    plane.show({ reach: source.reach, layers, data, drawn: state.source.kind === "drawn" ? state.source.points : null, panes });
    clear.hidden = !drops.length;
    say(said, legend(state.panes, source.exact));
    fetchSoon();
    measureSoon();
  }

  /** What is looked at now, and what may be next. */
  function wanted() {
    const shown = now.state.panes.flatMap((pane, k) => (ready(pane) ? [["score", pane, k], ["density", pane, k]] : []));
    return {
      now: shown.map(([what, pane, k]) => [what, pane, levelOf(k)]),
      next: shown.filter(([, pane]) => hasLevels(pane)),
      where: where(),
      later: !learning() && !playing(),
    };
  }

  function table() {
    const { state, source, facts, expected, differences } = now;
    if (!source) return;
    const found = state.panes.map((_, k) => facts?.[k] ?? null);
    const t = state.trains === "objectives" ? null : comparedAt();
    const known = differences.some((value) => value !== null);
    box.replaceChildren(...(facts || known ? [figures(found, expected, differences, t, source.exact ? "exact draws" : "data")] : []));
    const refused = facts?.map(({ refused: sentence }, k) => sentence && `${NAMES[k]}: ${sentence}`).filter(Boolean) ?? [];
    if (refused.length) refuse(refused.join(" "));
  }

  /** How far the learned scores are from the exact ones at the level that is shown. */
  async function measure() {
    const { state, source } = now;
    if (!state || !source?.exact || !learnedHere()) return;
    const t = comparedAt();
    const found = await Promise.all(state.panes.map(async (pane) => {
      if (!isLearned(pane)) return null;
      try {
        return (await post("/api/field/difference", { ...asked(pane), t })).difference;
      } catch {
        return null;
      }
    }));
    if (state !== now.state) return;
    now.differences = found;
    table();
  }

  return { boxes, figures: box, legend: said, draw, table, measure };
}
