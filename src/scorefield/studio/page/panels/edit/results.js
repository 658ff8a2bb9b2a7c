// What the other two tasks show: an image with its latent and its reconstruction, and the frames of a walk.

import { h, say } from "/assets/lib/dom.js";
import { address, draw, frame, scaleFor, show } from "/assets/lib/frames.js";
import { short } from "/assets/lib/numbers.js";
import { scrubber } from "/assets/lib/scrub.js";

const GAP = 16;
const LARGEST = 320; // CSS pixels of an image
const STILL = 48; // CSS pixels of a frame in the row

/** encoded() -> { element, image(frame), done(job, event, classes), clear() }. */
export function encoded() {
  const parts = ["Image", "Latent x_T", "Decoded"].map((name) => {
    const canvas = h("canvas", { width: 1, height: 1, role: "img", "aria-label": `${name}, enlarged` });
    return { canvas, element: h("figure", {}, canvas, h("figcaption", { class: "caption" }, name)) };
  });
  const figures = h("dl", { class: "facts" });
  const hint = h("p", { class: "empty" }, "Press Run to send the image up the deterministic flow to its latent, and down again.");
  const element = h("div", { class: "stage" }, h("div", { class: "trio" }, ...parts.map((part) => part.element)), h("div", { class: "told" }, hint, figures));
  let size = null;

  function lay() {
    if (!size || !element.clientWidth) return;
    const across = innerWidth > 760 ? 3 : 2;
    const scale = scaleFor(size.w, Math.min(LARGEST, (element.clientWidth - (across - 1) * GAP) / across));
    for (const { canvas } of parts) show(canvas, size.w, size.h, scale);
  }
  new ResizeObserver(lay).observe(element);

  return {
    element,
    image(pixels) {
      size = pixels;
      draw(parts[0].canvas, pixels, 0);
      for (const { canvas } of parts.slice(1)) Object.assign(canvas, { width: pixels.w, height: pixels.h });
      figures.replaceChildren();
      hint.hidden = false;
      lay();
    },
    async done(job, { mse, largest, changed, steps }) {
      const got = await Promise.all([0, 1, 2].map((i) => frame(address(job, i, "x0"))));
      got.forEach((one, i) => draw(parts[i].canvas, one, 0));
      hint.hidden = true;
      const told = [
        ["Mean squared error", `${short(mse)} of a pixel in [0, 1]`],
        ["Largest difference", `${largest} of 255`],
        ["Values that differ", `${(100 * changed).toFixed(1)} %`],
        ["Steps", `${steps} up and ${steps} down; more steps give a smaller error`],
      ];
      figures.replaceChildren(...told.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    },
  };
}

/** walked({ onstep }) -> { element, lay(shape, frames), done(job, frames, event) }. */
export function walked() {
  const canvas = h("canvas", { class: "large", width: 1, height: 1, role: "img", "aria-label": "Frame of the walk" });
  const about = h("p", { class: "soft" });
  const scrub = scrubber({ label: "Frame", onstep: at, text: (i) => (row.children.length ? `frame ${i + 1} of ${row.children.length}` : "") });
  const row = h("div", { class: "film", role: "group", "aria-label": "Frames of the walk" });
  const element = h("div", { class: "stage" }, canvas, scrub.element, row, about);
  let shown = [];
  let size = null;

  function at(i) {
    if (!shown[i]) return;
    draw(canvas, shown[i], 0);
    canvas.setAttribute("aria-label", `Frame ${i + 1} of the walk`);
    [...row.children].forEach((one, k) => one.setAttribute("aria-pressed", String(k === i)));
    row.scrollLeft = row.children[i].offsetLeft - row.offsetLeft - row.clientWidth / 2;
  }

  function lay() {
    if (!size || !element.clientWidth) return;
    show(canvas, size.w, size.h, scaleFor(size.w, Math.min(LARGEST, element.clientWidth)));
  }
  new ResizeObserver(lay).observe(element);

  return {
    element,
    stop: scrub.stop,
    /** Make room for a walk of so many frames. */
    lay([high, w], frames) {
      if (shown.length === frames && size?.w === w && size?.h === high) return;
      size = { w, h: high };
      shown = [];
      scrub.stop();
      scrub.ready(0);
      Object.assign(canvas, { width: w, height: high });
      row.replaceChildren(
        ...Array.from({ length: frames }, (_, i) => {
          const small = h("canvas", { width: w, height: high });
          show(small, w, high, scaleFor(w, STILL));
          return h("button", { type: "button", class: "still", disabled: true, "aria-label": `Frame ${i + 1}`, "aria-pressed": "false", onclick: () => { scrub.stop(); scrub.show(i); at(i); } }, small);
        }),
      );
      scrub.times(Array.from({ length: frames }, (_, i) => i + 1));
      say(about, "Press Run to see the images on the way from one end to the other.");
      lay();
    },
    async done(job, frames, { cosine, steps }) {
      shown = await Promise.all(Array.from({ length: frames }, (_, i) => frame(address(job, i, "x0"))));
      shown.forEach((one, i) => {
        draw(row.children[i].firstChild, one, 0);
        row.children[i].disabled = false;
      });
      scrub.ready(frames - 1);
      scrub.show(0);
      at(0);
      say(about, `Along the sphere that noise lies on, ${steps} steps down; cosine of the angle between the two latents ${cosine.toFixed(3).replace("-", "−")}.`);
    },
  };
}
