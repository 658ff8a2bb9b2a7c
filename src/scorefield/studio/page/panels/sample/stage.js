// What a job makes: its images while they denoise, a view of x̂0, x_t or both, and the scrubber over its steps.

import { h, reducedMotion, say } from "/assets/lib/dom.js";
import { segments } from "/assets/lib/controls.js";
import { address, frame, reach, scatter } from "/assets/lib/frames.js";
import { scrubber } from "/assets/lib/scrub.js";
import { tiles } from "/assets/lib/tiles.js";

export const VIEWS = [
  { value: "x0", text: "x̂₀", label: "x̂0, the estimate of the image" },
  { value: "x", text: "xₜ", label: "x_t, the noisy state" },
  { value: "both", text: "both", label: "x_t and x̂0 side by side" },
];

/** The frames of a view, from left to right. */
export const sides = (view) => (view === "both" ? ["x", "x0"] : [view]);

/** stage({ onpick, onview, onstep }) -> the part of the panel that shows a job. */
export function stage({ onpick, onview, onstep }) {
  const heading = h("h1", { class: "what-made" }, "Sample");
  const views = segments({ legend: "View", options: VIEWS, value: "x0", onchange: (view) => { setView(view); onview(view); } });
  const grid = tiles({ label: "Samples", onpick });
  const plane = h("canvas", { class: "plane", role: "img", "aria-label": "Samples in the plane", hidden: true });
  const scrub = scrubber({ label: "Step", onstep: (i) => { follow = i === ready; want(i); onstep(i); } });
  const hint = h("p", { class: "empty" });
  const element = h("div", { class: "stage" }, h("div", { class: "bar" }, heading, views.element), hint, grid.element, plane, scrub.element);
  const colour = () => getComputedStyle(plane).color;
  let job = null;
  let of = null;
  let view = "x0";
  let ready = 0;
  let follow = true; // whether the newest step is shown as it comes
  let wanted = null;
  let fetching = null; // the promise of the fetches under way
  let extent = 1;

  /** Show step i as soon as it is here. Steps asked for meanwhile are skipped, all but the last. */
  function want(i) {
    wanted = i;
    if (job) fetching ??= fetchWanted().finally(() => { fetching = null; });
  }

  async function fetchWanted() {
    while (wanted !== null) {
      const [id, at, now] = [job, wanted, view];
      wanted = null;
      let frames;
      try {
        frames = await Promise.all(sides(now).map((what) => frame(address(id, at, what))));
      } catch (error) {
        if (error.status === 410) continue; // a step that is no longer kept: the picture stays
        break;
      }
      if (id !== job || now !== view) continue;
      paint(frames);
    }
  }

  function paint(frames) {
    hint.hidden = true;
    if (frames[0].images) return grid.paint(frames);
    extent = Math.max(extent, Math.ceil(2 * Math.max(...frames.map(reach))) / 2);
    scatter(plane, frames.at(-1), extent, colour());
  }

  function setView(next) {
    view = next;
    views.set(next);
    if (of) lay(of);
    if (job && ready) want(scrub.value);
  }

  /** Lay out what will come, before it is there. */
  function lay(next) {
    of = next;
    const images = next.shape.length === 3;
    grid.element.hidden = !images;
    plane.hidden = images;
    if (!images) return;
    const [high, w] = next.shape;
    grid.shape({ n: next.n, w, h: high, across: sides(view).length, captions: next.captions, names: next.names, classes: next.classes });
  }

  return {
    element,
    scrub,
    lay,
    setView,
    get view() {
      return view;
    },
    title(text) {
      say(heading, text);
    },
    /** A new job: its grid of times, and nothing shown yet but what was there. */
    begin(id, times) {
      job = id;
      ready = 0;
      follow = true;
      extent = 1;
      wanted = null;
      scrub.stop();
      scrub.times(times);
      scrub.ready(0);
      scrub.show(0);
      grid.pick(null);
    },
    /** Step i is there. last: whether it is the final one. */
    step(i, last) {
      ready = i;
      scrub.ready(i);
      if (!follow || scrub.playing) return;
      scrub.show(i);
      if (last || !reducedMotion()) want(i);
    },
    /** Go to a step of the job. */
    at(i) {
      follow = i === ready;
      scrub.show(i);
      want(i);
    },
    empty(sentence) {
      hint.hidden = !sentence;
      say(hint, sentence ?? "");
    },
    pick: grid.pick,
    /** When what was asked for is drawn. */
    async settled() {
      await fetching;
    },
  };
}
