// The controls of the Field panel: an example, the points, and for each square a model and its sampler.

import { field, number, refusals, select, setting } from "/assets/lib/controls.js";
import { h, say } from "/assets/lib/dom.js";
import { count } from "/assets/lib/numbers.js";

const NAMES = ["A", "B", "C", "D"];
const COMPONENTS = 8; // of a mixture, above which guidance towards one is not offered

/** What a model is called on the page. */
export function modelName(model, methods) {
  const named = { exact: "Exact score", "exact-data": "Exact score of the data", learned: "Learned score" };
  return named[model] ?? `Learned by the ${methods.find(({ name }) => name === model)?.title ?? model} loss`;
}

/**
 * form(offers, act) -> { element, show(state, source), training(text, share), say(name, sentence) }.
 *
 * act: { example(id), change(changes, name), pane(k, changes, name), undo(), clear(), train() }.
 */
export function form(offers, act) {
  const element = h("div", { class: "groups" });
  const sources = [
    ...offers.toys.map(({ name, exact }) => ({ value: `toy:${name}`, text: exact ? `${name} (exact)` : name })),
    ...offers.mixtures.map(({ name }) => ({ value: `mixture:${name}`, text: `${name} (exact)` })),
    { value: "drawn", text: "points drawn by hand (exact)" },
  ];
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Training", hidden: true });
  const learned = h("p", { class: "hint", role: "status" });
  const train = h("button", { type: "button", onclick: () => act.train() }, "Train");
  const drawn = h("span", { class: "soft" });
  const drawing = h(
    "div",
    { class: "actions" },
    drawn,
    h("button", { type: "button", onclick: () => act.undo() }, "Undo"),
    h("button", { type: "button", onclick: () => act.clear() }, "Clear"),
  );
  // Which squares' controls are unfolded; on a narrow screen they stand before the picture.
  const open = new Set(matchMedia("(min-width: 761px)").matches ? [0, 1, 2, 3] : []);
  let fields = {};

  function add(name, made) {
    fields[name] = made;
    return made.element;
  }

  function show(state, source) {
    fields = {};
    const examples = [{ value: "", text: "none: choose everything" }, ...offers.presets.map(({ id, title }) => ({ value: id, text: title }))];
    const example = offers.presets.find(({ id }) => id === state.show);
    const chosen = state.source.kind === "drawn" ? "drawn" : `${state.source.kind}:${state.source.name}`;
    drawing.hidden = chosen !== "drawn";
    say(drawn, count(state.source.points?.length ?? 0, "point"));
    const needs = state.panes.some(({ model }) => !model.startsWith("exact"));
    element.replaceChildren(
      h(
        "div",
        { class: "group" },
        add("example", field({ label: "Example", control: select(examples, state.show ?? "", act.example) })),
        example ? h("p", { class: "lesson" }, example.text) : null,
      ),
      h(
        "div",
        { class: "group" },
        add("source", field({
          label: "Points",
          control: select(sources, chosen, (value) => act.change({ source: parseSource(value) }, "source")),
          hint: `Exact: a mixture of Gaussians, whose score is known at every noise level. Each point that is drawn by hand is one, of standard deviation ${offers.drawn_width}.`,
        })),
        drawing,
        h("div", { class: "two" },
          add("n", field({ label: "Samples", control: number({ value: state.n, min: 1, max: offers.largest.n, step: 1 }, (n) => act.change({ n: n ?? offers.defaults.n }, "n")) })),
          add("seed", field({ label: "Seed", control: number({ value: state.seed, min: 0, step: 1 }, (seed) => act.change({ seed: seed ?? 0 }, "seed")) }))),
      ),
      h("div", { class: "group", hidden: !needs }, h("div", { class: "bar" }, h("h2", {}, "Learned model"), train), progress, learned),
      ...state.panes.map((pane, k) => paneGroup(pane, k, state, source)),
    );
  }

  function paneGroup(pane, k, state, source) {
    const change = (name) => (changes) => act.pane(k, changes, `${k}.${name}`);
    const of = (name) => `${NAMES[k]}: ${name}`;
    const exact = source?.exact ? null : "the exact score of this toy is not known";
    const models = state.trains === "objectives"
      ? offers.methods.map(({ name, title }) => ({ value: name, text: title }))
      : [
          { value: "exact", text: "exact", refused: exact },
          { value: "exact-data", text: "exact, of the data alone", refused: exact },
          { value: "learned", text: "learned" },
        ];
    const kind = pane.model === "exact" || pane.model === "learned" ? "exact" : "exact-data";
    const samplers = offers.samplers.map(({ name, refused }) => ({ value: name, text: name, refused: refused[kind] }));
    const found = offers.samplers.find(({ name }) => name === pane.sampler);
    const levels = kind === "exact";
    const grids = offers.grids.map(({ name }) => ({ value: name, text: name }));
    const settings = (found?.settings ?? []).map((one) =>
      add(`${k}.${one.name}`, setting(one, pane.settings[one.name], (value) => {
        const { [one.name]: _, ...others } = pane.settings;
        change(one.name)({ settings: value === null ? others : { ...others, [one.name]: value } });
      })));
    const components = source?.components && source.components <= COMPONENTS ? source.components : 0;
    const guided = components && pane.model === "exact"
      ? h("div", { class: "two" },
          add(`${k}.guidance`, field({ label: "Guidance scale", hint: "By the exact classifier of the mixture's components.", control: number({ value: pane.guidance, placeholder: "none", step: 0.5 }, (guidance) => change("guidance")({ guidance })) })),
          add(`${k}.label`, field({ label: "Towards class", control: select(Array.from({ length: components }, (_, i) => ({ value: String(i), text: String(i) })), String(pane.label ?? 0), (label) => change("label")({ label: Number(label) })) })))
      : null;
    const steps = add(`${k}.steps`, field({ label: "Steps", control: number({ value: pane.steps, min: 1, step: 1 }, (steps) => change("steps")({ steps: steps ?? offers.defaults.pane.steps })) }));
    const shown = h("details", { class: "pane", open: open.has(k), ontoggle: () => open[shown.open ? "add" : "delete"](k) },
      h("summary", {}, h("span", { class: "letter" }, NAMES[k]), ` ${models.find(({ value }) => value === pane.model)?.text ?? pane.model}, ${pane.sampler}`));
    shown.append(h(
      "fieldset",
      { class: "group", "aria-label": `Square ${NAMES[k]}` },
      add(`${k}.model`, field({ label: "Score", control: select(models, pane.model, (model) => change("model")(chosenModel(model, pane))) })),
      h("div", { class: "two" },
        add(`${k}.sampler`, field({ label: "Sampler", hint: found?.summary, control: select(samplers, pane.sampler, (sampler) => change("sampler")(chosenSampler(sampler, levels))) })),
        steps),
      refusals(samplers, "do not go with this score"),
      levels
        ? h("div", { class: pane.grid === "staircase" ? "two" : "" },
            add(`${k}.grid`, field({ label: "Grid", control: select(grids, pane.grid, (grid) => change("grid")({ grid })) })),
            pane.grid === "staircase" ? add(`${k}.repeats`, field({ label: "Updates a level", control: number({ value: pane.repeats, min: 1, step: 1 }, (repeats) => change("repeats")({ repeats: repeats ?? 1 })) })) : null)
        : null,
      settings.length ? h("div", { class: "two settings" }, ...settings) : null,
      guided,
    ));
    return shown;
  }

  function chosenSampler(sampler, levels) {
    if (sampler !== "langevin") return { sampler, settings: {}, grid: "uniform", repeats: 1, steps: 20 };
    return levels
      ? { sampler, settings: { step: 0.0002 }, grid: "staircase", repeats: 50, steps: 1000 }
      : { sampler, settings: { step: 0.02 }, grid: "uniform", repeats: 1, steps: 300 };
  }

  function chosenModel(model, pane) {
    const levels = model === "exact" || model === "learned";
    const had = pane.model === "exact" || pane.model === "learned";
    const sampler = levels === had ? {} : chosenSampler(levels ? "ddim" : "langevin", levels);
    return { model, ...sampler, ...(model === "exact" ? {} : { guidance: null, label: null }) };
  }

  return {
    element,
    show,
    /** What the learned model is; share: of its training that is done, or null. */
    training(text, share, busy) {
      say(learned, text);
      progress.hidden = share === null;
      progress.value = share ?? 0;
      say(train, busy ? "Stop" : share === 1 ? "Train again" : "Train");
    },
    points(many) {
      say(drawn, count(many, "point"));
    },
    /** Put a sentence below the control of this name, and take it from all others; false where there is none. */
    say(name, sentence) {
      for (const [other, made] of Object.entries(fields)) made.say(other === name ? sentence : null);
      return name in fields;
    },
    focus(name) {
      fields[name]?.control.focus();
    },
  };
}

function parseSource(value) {
  if (value === "drawn") return { kind: "drawn", points: [] };
  const [kind, name] = value.split(":");
  return { kind, name };
}
