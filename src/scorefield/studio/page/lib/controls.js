// Form controls with a label, a hint and a place for a sentence of the server's.
// Those of a Setting are made of what the library declares: name, type, default, description, choices.

import { h } from "/assets/lib/dom.js";

let numbered = 0;

/**
 * field({ label, control, hint, beside }) -> { element, control, say(sentence), refused }.
 *
 * hint: shown when the user asks for it. beside: further controls in the same line. say puts a sentence below the
 * control; an empty one takes it away.
 */
export function field({ label, control, hint = "", beside = [] }) {
  const id = `field-${++numbered}`;
  control.id = id;
  const error = h("p", { class: "refusal", id: `${id}-refusal`, hidden: true });
  const text = h("p", { class: "hint", id: `${id}-hint`, hidden: true }, hint);
  const ask = h(
    "button",
    {
      type: "button",
      class: "what",
      "aria-expanded": "false",
      "aria-controls": text.id,
      "aria-label": `About ${label}`,
      onclick() {
        text.hidden = !text.hidden;
        ask.setAttribute("aria-expanded", String(!text.hidden));
      },
    },
    "?",
  );
  const head = h("div", { class: "head" }, h("label", { for: id }, label), hint ? ask : null);
  const element = h("div", { class: "field" }, head, h("div", { class: "line" }, control, ...beside), text, error);
  return {
    element,
    control,
    say(sentence) {
      error.textContent = sentence ?? "";
      error.hidden = !sentence;
      control.toggleAttribute("aria-invalid", Boolean(sentence));
      if (sentence) control.setAttribute("aria-describedby", error.id);
      else control.removeAttribute("aria-describedby");
    },
    about(sentence) {
      text.textContent = sentence;
    },
  };
}

/** A <select>. options: [{ value, text, refused }]; a refused one is disabled, and `refused` is its sentence. */
export function select(options, value, onchange) {
  const made = h("select", { onchange: () => onchange(made.value) });
  made.append(...options.map(({ value: own, text, refused }) => h("option", { value: own, disabled: Boolean(refused), title: refused || null }, text)));
  made.value = value ?? "";
  return made;
}

/** The refused ones of some options, with why; nothing where all can be chosen. The summary is their number and `sentence`. */
export function refusals(options, sentence) {
  const out = options.filter((option) => option.refused);
  if (!out.length) return null;
  return h(
    "details",
    { class: "refusals" },
    h("summary", {}, `${out.length} ${sentence}`),
    h("dl", {}, ...out.flatMap(({ text, refused }) => [h("dt", {}, text), h("dd", {}, refused)])),
  );
}

/** An <input type=number>; onchange receives a number, or null where it is empty. */
export function number({ value, placeholder = "", min, max, step = "any" }, onchange) {
  const made = h("input", { type: "number", min, max, step, placeholder, value: value ?? "", inputmode: step === 1 ? "numeric" : "decimal" });
  made.addEventListener("input", () => onchange(made.value === "" ? null : Number(made.value)));
  return made;
}

const TYPES = ["number", "integer", "text", "true | false"];

/** Whether a Setting has a control; a table has none. */
export const hasControl = ({ type, choices }) => Boolean(choices) || TYPES.includes(type);

/** A field for one Setting. onchange receives a value of its type, or null for the default. */
export function setting({ name, type, default: usual, description, choices }, value, onchange) {
  const words = name.split(".").at(-1).replaceAll("_", " ");
  const label = words[0].toUpperCase() + words.slice(1);
  const given = usual === "" || usual === "required" ? usual : bare(usual);
  let control;
  if (choices) {
    const options = choices.map((word) => ({ value: String(word), text: String(word) }));
    control = select(options, String(value ?? given), (word) => onchange(word === given ? null : word));
  } else if (type === "true | false") {
    control = select(
      ["false", "true"].map((word) => ({ value: word, text: word === "true" ? "yes" : "no" })),
      String(value ?? given),
      (word) => onchange(word === given ? null : word === "true"),
    );
  } else if (type === "number" || type === "integer") {
    control = number({ value, placeholder: given, step: type === "integer" ? 1 : "any" }, onchange);
  } else {
    control = h("input", { type: "text", placeholder: given || "none", value: value ?? "" });
    control.addEventListener("input", () => onchange(control.value || null));
  }
  return field({ label, control, hint: description });
}

const bare = (text) => text.replace(/^"(.*)"$/, "$1");

/** Radio buttons side by side. options: [{ value, text, label }]; label is what a screen reader says. */
export function segments({ legend, options, value, onchange }) {
  const name = `segments-${++numbered}`;
  const inputs = options.map((option) => h("input", { type: "radio", name, value: option.value, checked: option.value === value, onchange: () => onchange(option.value), "aria-label": option.label ?? null }));
  const element = h(
    "fieldset",
    { class: "segments" },
    h("legend", { class: "unseen" }, legend),
    ...options.map((option, i) => h("label", {}, inputs[i], h("span", {}, option.text))),
  );
  return {
    element,
    set(chosen) {
      for (const input of inputs) input.checked = input.value === chosen;
    },
  };
}
