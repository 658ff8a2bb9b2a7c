// The controls of Encode and Walk: the run, the steps of the deterministic flow, the frames and the class.

import { field, number, refusals, select } from "/assets/lib/controls.js";
import { h } from "/assets/lib/dom.js";

export const FRAMES = 16;

/**
 * flowForm({ onrun, onchange }) -> { element, show(task, own, options, run, offers), clear() }.
 *
 * own: { label, steps, frames }, which is changed in place; onchange(name) is called then. options: the runs, with why
 * one is refused. onrun(id): another run is chosen.
 */
export function flowForm({ onrun, onchange }) {
  const element = h("div", { class: "groups" });

  function show(task, own, options, run, offers) {
    const control = select(options, String(run), (id) => onrun(Number(id)));
    const tell = (name) => (value) => { own[name] = value; onchange(name); };
    const two = [field({ label: "Steps", hint: "Of the deterministic flow. More steps reconstruct an image better.", control: number({ value: own.steps, placeholder: offers?.defaults.steps ?? "", min: 1, max: 1000, step: 1 }, tell("steps")) })];
    if (task === "walk") two.push(field({ label: "Frames", control: number({ value: own.frames, min: 2, max: 64, step: 1 }, tell("frames")) }));
    const classes = offers?.labels?.classes;
    if (classes) own.label ??= 0;
    const named = classes && field({ label: "Class", control: select(classes.map((text, i) => ({ value: String(i), text })), String(own.label), (value) => tell("label")(Number(value))) });
    element.replaceChildren(
      h("div", { class: "group" }, field({ label: "Run", control }).element, refusals(options, "of the runs here cannot be edited") ?? ""),
      h("div", { class: "group" }, h("div", { class: "two" }, ...two.map((one) => one.element)), named?.element ?? ""),
    );
  }

  return { element, show, clear: () => element.replaceChildren() };
}
