// The controls of the Sample panel, made of what the server says that the run's samplers declare.

import { field, hasControl, number, refusals, select, setting } from "/assets/lib/controls.js";
import { h, icon } from "/assets/lib/dom.js";
import { newSeed } from "/assets/panels/sample/request.js";

const MANY = 24; // classes, above which they are typed and not ticked

/**
 * form({ onchange, locked, onlock, cannot, first }) -> { element, show(state, runs, offers), say(name, sentence), implied(plan) }.
 *
 * onchange(name, change) receives what the user changed. cannot: what is said of runs that are refused.
 * first: further controls below the run; then every run has the same seed. offers: what GET /api/runs/ID/sampling says.
 */
export function form({ onchange, locked, onlock, cannot = "of the runs here cannot be sampled", first = null }) {
  const element = h("div", { class: "groups" });
  let fields = {};

  function show(state, runs, offers) {
    const open = element.querySelector("details.more")?.open ?? false;
    fields = {};
    const groups = [runField(state, runs)];
    if (offers) {
      groups.push(...(first ? [first] : []), samplerGroup(state, offers), ...conditionGroup(state, runs, offers), countGroup(state, offers), more(state, offers, open));
    }
    element.replaceChildren(...groups);
  }

  function add(name, made) {
    fields[name] = made;
    return made.element;
  }

  function runField(state, runs) {
    const options = runs.map(({ id, name, can, problem }) => ({ value: String(id), text: name, refused: problem ?? can.sample }));
    const told = refusals(options, cannot);
    const control = select(options, String(state.run), (id) => onchange("run", { run: Number(id) }));
    return h("div", { class: "group" }, add("run", field({ label: "Run", control })), told);
  }

  function samplerGroup(state, offers) {
    const { samplers, defaults } = offers;
    const options = samplers.map(({ name, refused }) => ({ value: name, text: name, refused }));
    const about = (state) => samplers.find(({ name }) => name === (state.sampler ?? defaults.sampler))?.summary;
    const own = h("div", { class: "group" }, ...ofSampler(state, offers));
    const sampler = field({
      label: "Sampler",
      control: select(options, state.sampler ?? defaults.sampler, (name) => {
        Object.assign(state, { sampler: name === defaults.sampler ? null : name, settings: {} });
        sampler.about(about(state));
        own.replaceChildren(...ofSampler(state, offers)); // the list of samplers itself keeps the focus
        onchange("sampler", {});
      }),
      hint: about(state),
    });
    return h("div", { class: "group" }, add("sampler", sampler), refusals(options, "not possible with this run"), own);
  }

  /** What depends on the sampler: steps, grid, and its settings. */
  function ofSampler(state, { samplers, grids, defaults, largest }) {
    const found = samplers.find(({ name }) => name === (state.sampler ?? defaults.sampler));
    const steps = field({
      label: "Steps",
      control: number({ value: state.steps, placeholder: state.sampler ? "" : (defaults.steps ?? ""), min: 1, max: largest?.steps, step: 1 }, (value) => onchange("steps", { steps: value })),
    });
    const named = grids.map(({ name, refused }) => ({ value: name, text: name, refused }));
    const counts = state.grid && !named.some(({ value }) => value === state.grid) ? [{ value: state.grid, text: state.grid }] : [];
    const fixed = () => { steps.control.disabled = grids.some((one) => one.name === state.grid && one.fixes_steps); };
    fixed();
    const grid = field({
      label: "Grid",
      control: select([{ value: "", text: state.sampler ? "default" : defaults.grid }, ...named.filter(({ value }) => state.sampler || value !== defaults.grid), ...counts], state.grid ?? "", (name) => {
        state.grid = name || null;
        fixed();
        onchange("grid", {});
      }),
    });
    const settings = (found?.settings ?? []).filter(hasControl).map((one) => {
      const made = setting({ ...one, default: text(state.sampler ? null : defaults.settings?.[one.name], one.default) }, state.settings[one.name], (value) => {
        const { [one.name]: _, ...others } = state.settings;
        state.settings = value === null ? others : { ...others, [one.name]: value };
        onchange(one.name, { settings: state.settings });
      });
      return add(one.name, made);
    });
    const parts = [h("div", { class: "two" }, add("steps", steps), add("grid", grid)), refusals(named, "not possible with this run")];
    return [...parts, settings.length ? h("div", { class: "two" }, ...settings) : null].filter(Boolean);
  }

  function conditionGroup(state, runs, { labels, guidance, defaults }) {
    const parts = [];
    if (labels) parts.push(labels.classes.length > MANY ? typed(state, labels.classes) : ticked(state, labels.classes));
    if (guidance) {
      const made = field({
        label: "Guidance scale",
        hint: "Classifier-free: 1 is the conditional model. By a classifier: 0 is none.",
        control: number({ value: state.guidance, placeholder: guidance.default ?? defaults.guidance ?? "none", step: 0.1 }, (value) => onchange("guidance", { guidance: value })),
      });
      made.control.disabled = Boolean(guidance.refused);
      if (guidance.refused) made.element.append(h("p", { class: "soft" }, guidance.refused));
      const line = [add("guidance", made)];
      if (guidance.classifiers?.length) {
        const named = guidance.classifiers.map((id) => ({ value: String(id), text: runs.find((run) => run.id === id)?.name ?? String(id) }));
        line.push(add("classifier", field({
          label: "Classifier",
          control: select([{ value: "", text: "none" }, ...named], state.classifier === null ? "" : String(state.classifier), (id) => onchange("classifier", { classifier: id === "" ? null : Number(id) })),
        })));
      }
      parts.push(h("div", { class: line.length > 1 ? "two" : "" }, ...line));
    }
    return parts.length ? [h("div", { class: "group" }, ...parts)] : [];
  }

  function ticked(state, classes) {
    const boxes = classes.map((name, i) =>
      h("label", { class: "chip" }, h("input", { type: "checkbox", value: i, checked: state.labels?.includes(i) ?? false, onchange: tell }), h("span", {}, name)),
    );
    function tell() {
      const chosen = [...element.querySelectorAll(".chips input:checked")].map((box) => Number(box.value));
      onchange("labels", { labels: chosen.length ? chosen : null });
    }
    const error = h("p", { class: "refusal", hidden: true });
    fields.labels = { say: (sentence) => { error.textContent = sentence ?? ""; error.hidden = !sentence; } };
    return h("fieldset", { class: "chips" }, h("legend", {}, "Classes", h("span", { class: "soft" }, " · none ticked: all in turn")), ...boxes, error);
  }

  function typed(state, classes) {
    const control = h("input", { type: "text", placeholder: "all in turn", value: state.labels?.map((i) => classes[i]).join(", ") ?? "" });
    control.addEventListener("change", () => {
      const words = control.value.split(",").map((word) => word.trim()).filter(Boolean);
      const found = words.map((word) => (/^\d+$/.test(word) && !classes.includes(word) ? Number(word) : classes.indexOf(word)));
      const wrong = words.find((_, i) => found[i] < 0 || found[i] >= classes.length);
      fields.labels.say(wrong === undefined ? null : `There is no class ${wrong}: give names or numbers from 0 to ${classes.length - 1}, separated by commas.`);
      if (wrong === undefined) onchange("labels", { labels: found.length ? found : null });
    });
    return add("labels", field({ label: "Classes", control, hint: "Names or numbers, separated by commas; they are given to the samples in turn." }));
  }

  function countGroup(state, { defaults, largest }) {
    const one = state.indices !== null;
    const n = field({
      label: "Samples",
      control: number({ value: one ? state.indices.length : state.n, placeholder: defaults.n ?? 16, min: 1, max: largest?.n ?? 64, step: 1 }, (value) => onchange("n", { n: value })),
    });
    n.control.disabled = one;
    const seed = number({ value: state.seed, min: 0, step: 1 }, (value) => onchange("seed", { seed: value ?? 0 }));
    const die = h("button", { type: "button", class: "inside", "aria-label": "Draw a new seed", title: "Draw a new seed", onclick: () => {
      seed.value = newSeed();
      onchange("seed", { seed: Number(seed.value) });
    } }, icon("die"));
    const lock = h("button", { type: "button", class: "inside", "aria-pressed": String(locked()), "aria-label": "Keep the seed", onclick: turn });
    function face() {
      lock.replaceChildren(icon(locked() ? "locked" : "open"));
      lock.setAttribute("aria-pressed", String(locked()));
      lock.title = locked() ? "The seed is kept from run to run" : "Each run draws a new seed";
    }
    function turn() {
      onlock(!locked());
      face();
    }
    face();
    const only = one
      ? h("p", { class: "only" }, `Only sample ${state.indices.join(", ")} of this seed. `, h("button", { type: "button", class: "link", onclick: () => onchange("indices", { indices: null, redraw: true }) }, "All samples again"))
      : null;
    return h("div", { class: "group" }, h("div", { class: "two" }, add("n", n), add("seed", field({ label: "Seed", control: seed, beside: onlock ? [die, lock] : [die] }))), only, state.near ? nearGroup(state) : null);
  }

  /** How near the latents are to that of one sample. */
  function nearGroup(state) {
    const weight = field({
      label: "Distance of the latents",
      hint: "From 0 to 1: the share of the way along the sphere of noise from the x_T of this sample to the x_T that another one has. 0 is the sample itself.",
      control: number({ value: state.near.weight, min: 0, max: 1, step: 0.05 }, (value) => onchange("near", { near: { ...state.near, weight: value ?? 0 } })),
    });
    return h("div", {}, h("p", { class: "only" }, `Neighbours of the latent of sample ${state.near.sample}. `, h("button", { type: "button", class: "link", onclick: () => onchange("near", { near: null, redraw: true }) }, "Samples of the seed again")), add("near", weight));
  }

  function more(state, { defaults, options = [] }, open) {
    const others = options.filter(hasControl).map((one) =>
      add(one.name, setting({ ...one, default: text(defaults.options?.[one.name], one.default) }, state.options[one.name], (value) => {
        const { [one.name]: _, ...rest } = state.options;
        state.options = value === null ? rest : { ...rest, [one.name]: value };
        onchange(one.name, { options: state.options });
      })),
    );
    const block = field({
      label: "Block",
      hint: "Samples that the network computes at once. The last place of a value may depend on it, so the command that is copied carries it.",
      control: number({ value: state.block, placeholder: defaults.block ?? 8, min: 1, step: 1 }, (value) => onchange("block", { block: value })),
    });
    return h("details", { class: "more", open }, h("summary", {}, "More"), h("div", { class: "two" }, ...others, add("block", block)));
  }

  /** A default as text: the run's own, where it has one. */
  const text = (own, declared) => (own === null || own === undefined ? declared : String(own));

  return {
    element,
    show,
    /** Put a sentence below the control of this name; false where there is none. */
    say(name, sentence) {
      for (const [other, made] of Object.entries(fields)) made.say(other === name ? sentence : null);
      return name in fields;
    },
    /** What the plan says that an empty control stands for. */
    implied({ times }) {
      if (times && fields.steps) fields.steps.control.placeholder = String(times.length - 1);
    },
  };
}
