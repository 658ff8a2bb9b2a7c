// What the Edit panel asks for: the request of a task, and the address's parameters.

import { FILLINGS } from "/assets/panels/edit/fillings.js";
import { FRAMES } from "/assets/panels/edit/flow_form.js";
import { toParams, toRequest } from "/assets/panels/sample/request.js";

const LONGEST = 800; // characters of a mask in the address

/**
 * { request } of a task, or { missing }, a sentence that says what to choose first.
 *
 * state: the SampleRequest of fillings. own: { label, steps, frames } of the other tasks. view: { picker, from, to, mask }.
 */
export function asked(task, state, own, { picker, from, to, mask }) {
  if (task === "fill") {
    if (!picker.image) return { missing: "Choose an image first." };
    if (!mask.painted()) return { missing: "Paint on the image what is to be filled in." };
    return { request: { ...toRequest(state), n: state.n ?? FILLINGS, image: picker.image.id, mask: mask.lengths() } };
  }
  const given = Object.fromEntries(["label", "steps"].map((name) => [name, own[name]]).filter(([, value]) => value !== null));
  if (task === "encode") return picker.image ? { request: { run: state.run, image: picker.image.id, ...given } } : { missing: "Choose an image first." };
  if (from.value === null || to.value === null) return { missing: "Choose both ends first." };
  return { request: { run: state.run, a: from.value, b: to.value, frames: own.frames ?? FRAMES, ...given } };
}

/** The address's parameters of the same. */
export function params(task, state, own, { picker, from, to, mask }) {
  const image = picker.text === "0" ? null : picker.text;
  if (task === "fill") {
    const lengths = mask.painted() ? mask.lengths().join(",") : "";
    return { image, ...toParams(state), mask: lengths.length <= LONGEST ? lengths : null };
  }
  const flow = { task, run: state.run, label: own.label, steps: own.steps };
  if (task === "encode") return { ...flow, image };
  return { ...flow, from: from.text, to: to.text, frames: own.frames === FRAMES ? null : own.frames };
}
