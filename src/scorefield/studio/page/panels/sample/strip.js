// The last runs of this page: a picture each, which shows that run again.

import { get, pageName } from "/assets/lib/api.js";
import { h } from "/assets/lib/dom.js";
import { address, draw, frame, scaleFor, show } from "/assets/lib/frames.js";

/** strip({ onopen }) -> { element, refresh(current, describe) }. onopen receives { id, request, … } of a run. */
export function strip({ onopen }) {
  const list = h("div", { class: "film" });
  const element = h("section", { class: "strip", "aria-label": "Last runs of this page", hidden: true }, h("h2", {}, "Last runs"), list);

  async function refresh(current, describe) {
    const jobs = (await get(`/api/jobs?page=${pageName()}`)).filter(({ kind, state }) => kind === "sample" && state === "done");
    const known = new Map([...list.children].map((button) => [button.dataset.job, button]));
    const buttons = await Promise.all(jobs.map((job) => known.get(String(job.id)) ?? made(job, describe)));
    list.replaceChildren(...buttons);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.job === String(current)));
    element.hidden = !buttons.length;
    return jobs;
  }

  async function made(job, describe) {
    const { text, steps, shape } = await describe(job);
    const canvas = h("canvas", { width: 1, height: 1 });
    const button = h("button", { type: "button", class: "still", "data-job": job.id, onclick: () => onopen(job) }, canvas, h("span", { class: "caption" }, text));
    if (shape.length === 3) {
      Object.assign(canvas, { width: shape[1], height: shape[0] });
      show(canvas, shape[1], shape[0], scaleFor(shape[1], 64));
      frame(address(job.id, steps, "x")).then((got) => draw(canvas, got, 0), () => {});
    } else canvas.hidden = true;
    return button;
  }

  return { element, refresh };
}
