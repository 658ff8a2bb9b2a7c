// The axes of a comparison: what differs along the rows and the columns, and its values. They are made of what the
// server says that the run's samplers declare.

import { field, hasControl, number, refusals, select } from "/assets/lib/controls.js";
import { h } from "/assets/lib/dom.js";

const MANY = 24; // choices, above which they are typed and not ticked
const STEPS = [5, 10, 20, 50];
const NUMBERS = "Numbers, separated by commas.";

/** The state of two axes that suits a run. */
export function suggested(runs, offers) {
  const known = axes(runs, offers);
  const of = (name) => ({ name, values: known.find((axis) => axis.name === name).usual });
  return { rows: of("sampler"), columns: of("steps"), reference: Math.min(100, offers.levels ?? 100) };
}

/** What can differ: [{ name, text, choices: [{ value, text, refused }] | null, usual: [values] }]. */
function axes(runs, { samplers, grids, labels, guidance, options = [], levels }) {
  const declared = (list) => list.map(({ name, refused }) => ({ value: name, text: name, refused }));
  const settings = samplers.filter(({ refused }) => !refused).flatMap(({ name, settings: own }) => own.filter(numeric).map((one) => ofSetting("settings", one, ` of ${name}`)));
  const cards = runs.map(({ id, name, can, problem }) => ({ value: id, text: name, refused: problem ?? can.sample }));
  const made = [
    { name: "sampler", text: "Sampler", choices: declared(samplers) },
    { name: "steps", text: "Steps", choices: null, usual: STEPS.filter((steps) => !levels || steps <= levels) },
    { name: "grid", text: "Grid", choices: declared(grids.filter((grid) => !grid.fixes_steps)) },
    ...settings.filter(({ name }, i) => settings.findIndex((one) => one.name === name) === i),
  ];
  if (labels) made.push({ name: "labels", text: "Class", choices: labels.classes.map((text, value) => ({ value, text })) });
  if (guidance && !guidance.refused) made.push({ name: "guidance", text: "Guidance scale", choices: null, usual: [1, 1.5, 3] });
  if (guidance?.classifiers?.length) made.push({ name: "classifier", text: "Classifier", choices: cards.filter(({ value }) => guidance.classifiers.includes(value)).map(({ value, text }) => ({ value, text })) });
  if (cards.filter(({ refused }) => !refused).length > 1) made.push({ name: "run", text: "Run", choices: cards });
  made.push(...options.filter(numeric).map((one) => ofSetting("options", one, "")));
  return made.map((axis) => ({ usual: (axis.choices ?? []).filter(({ refused }) => !refused).slice(0, 3).map(({ value }) => value), ...axis }));
}

const numeric = (one) => hasControl(one) && one.type !== "text";

function ofSetting(table, { name, type, choices }, of) {
  const words = name.replaceAll("_", " ");
  const yes = type === "true | false" ? [{ value: true, text: "yes" }, { value: false, text: "no" }] : null;
  const listed = choices?.map((value) => ({ value, text: String(value) })) ?? yes;
  return { name: `${table}.${name}`, text: `${words[0].toUpperCase()}${words.slice(1)}${of}`, choices: listed, ...(listed ? {} : { usual: name === "eta" ? [0, 0.5, 1] : [] }) };
}

/** axesForm({ onchange }) -> { element, show(wish, runs, offers) }. wish: { rows, columns, reference }, which it writes. */
export function axesForm({ onchange }) {
  const element = h("div", { class: "group" });

  function show(wish, runs, offers) {
    const known = axes(runs, offers);
    for (const side of ["rows", "columns"]) {
      if (wish[side].name && !known.some(({ name }) => name === wish[side].name)) wish[side] = { name: side === "rows" ? "sampler" : "", values: known[0].usual };
    }
    const reference = field({
      label: "Steps of the reference",
      hint: "Each cell's distance is √(mean (a − b)²), averaged over the samples, to the sample that DDIM with η = 0 gives in so many steps from the same x_T. Empty: no distance.",
      control: number({ value: wish.reference, placeholder: "none", min: 1, max: offers.levels ?? undefined, step: 1 }, (value) => { wish.reference = value; onchange(); }),
    });
    element.replaceChildren(side("Rows", "rows", wish, known), side("Columns", "columns", wish, known), reference.element, h("p", { class: "soft" }, "The values of rows and columns take the place of the settings below."));
  }

  function side(title, key, wish, known) {
    const values = h("div", {});
    const options = known.map(({ name, text }) => ({ value: name, text }));
    const control = select(key === "columns" ? [{ value: "", text: "none" }, ...options] : options, wish[key].name, (name) => {
      wish[key] = { name, values: known.find((axis) => axis.name === name)?.usual ?? [] };
      fill();
      onchange();
    });
    function fill() {
      const axis = known.find(({ name }) => name === wish[key].name);
      values.replaceChildren(...(axis ? [axis.choices && axis.choices.length <= MANY ? ticked(title, axis, wish[key]) : typed(title, axis, wish[key])] : []));
    }
    fill();
    return h("div", { class: "axis" }, field({ label: title, control }).element, values);
  }

  function ticked(title, { choices }, chosen) {
    const tell = () => {
      chosen.values = choices.filter((_, i) => boxes[i].checked).map(({ value }) => value);
      onchange();
    };
    const boxes = choices.map(({ value, refused }) => h("input", { type: "checkbox", checked: chosen.values.includes(value), disabled: Boolean(refused), onchange: tell }));
    const chips = choices.map(({ text, refused }, i) => h("label", { class: "chip", title: refused || null }, boxes[i], h("span", {}, text)));
    return h("div", {}, h("fieldset", { class: "chips" }, h("legend", { class: "unseen" }, `Values of the ${title.toLowerCase()}`), ...chips), refusals(choices, "not possible with this run"));
  }

  function typed(title, { choices }, chosen) {
    const control = h("input", { type: "text", value: chosen.values.join(", "), placeholder: "values", oninput: () => {
      const words = control.value.split(",").map((word) => word.trim()).filter(Boolean);
      const wrong = words.find((word) => !Number.isFinite(Number(word)));
      made.say(wrong === undefined ? null : `${wrong} is not a number. ${NUMBERS}`);
      chosen.values = wrong === undefined ? words.map(Number) : [];
      onchange();
    } });
    const made = field({ label: `Values of the ${title.toLowerCase()}`, control, hint: choices ? `Numbers of classes from 0 to ${choices.length - 1}, separated by commas.` : NUMBERS });
    return made.element;
  }

  return { element, show };
}

/** The axes of an address's parameters, or null where it has none. */
export function fromParams(params) {
  if (!params.rows) return null;
  const listed = (text) => (text ? text.split(",").map(value) : []);
  return {
    rows: { name: params.rows, values: listed(params.down) },
    columns: { name: params.columns ?? "", values: listed(params.across) },
    reference: params.reference ? Number(params.reference) : null,
  };
}

/** The parameters of the axes. */
export const toParams = ({ rows, columns, reference }) => ({ rows: rows.name, down: rows.values.join(","), columns: columns.name, across: columns.name ? columns.values.join(",") : null, reference });

function value(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
