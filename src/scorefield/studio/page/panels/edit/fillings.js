// The fillings of a mask: their job step by step, and the one that is chosen.

import { h } from "/assets/lib/dom.js";
import { stage } from "/assets/panels/sample/stage.js";

export const FILLINGS = 6;

/** fillings({ card, onagain, onsave }) -> { stage, buttons, job, … }. onagain(id, k): edit filling k. onsave(job, picked): save it. */
export function fillings({ card, onagain, onsave }) {
  const screen = stage({ onpick: pick, onview: () => {}, onstep: () => {} });
  const picture = h("button", { type: "button", disabled: true, onclick: () => onsave(job, picked) }, "Save picture");
  const again = h("button", { type: "button", hidden: true, onclick: () => { const k = picked; pick(null); onagain(job.id, k); } }, "Edit this filling");
  let job = null; // { id, request, times, done }
  let picked = null;

  function pick(k) {
    picked = k === picked ? null : k;
    screen.pick(picked);
    again.hidden = picked === null || !job?.done;
  }

  /** Make room for what a request makes. */
  function lay(wanted) {
    const { shape, classes } = card(wanted.run);
    const n = wanted.indices?.length ?? wanted.n ?? FILLINGS;
    const labels = wanted.labels ?? (classes ? classes.map((_, i) => i) : null);
    const named = labels && classes ? Array.from({ length: n }, (_, k) => classes[labels[k % labels.length]] ?? "") : null;
    const names = Array.from({ length: n }, (_, k) => `filling ${k}${named ? `, ${named[k]}` : ""}`);
    screen.lay({ n, shape, names, captions: named && labels.length > 1 ? named : null, classes: labels?.length ?? 1 });
  }

  return {
    stage: screen,
    picture,
    again,
    get empty() {
      return job === null;
    },
    /** Forget the job, as where the image has changed. */
    clear() {
      job = null;
      again.hidden = true;
    },
    /** Show what will come, before there is a job. */
    preview(wanted) {
      lay(wanted);
      screen.title("Fillings");
      screen.empty("");
    },
    begin({ id, times }, request) {
      job = { id, request, times, done: false };
      lay(request);
      screen.begin(id, times);
      screen.title(`Fillings · seed ${request.seed ?? 0}`);
      picture.disabled = true;
      if (innerWidth < 760) screen.element.scrollIntoView({ block: "start" });
    },
    step({ i }) {
      const last = job.times.length - 1;
      screen.step(i, i === last);
      return last;
    },
    done() {
      job.done = true;
      picture.disabled = false;
    },
    show(on) {
      picture.hidden = !on;
      if (!on) again.hidden = true;
    },
    pick,
  };
}
