// One sample of a job: the film of its steps, its seed and index, and its nearest training images.

import { blob, get, save } from "/assets/lib/api.js";
import { h, icon } from "/assets/lib/dom.js";
import { address, draw, frame, scaleFor, show } from "/assets/lib/frames.js";
import { short, time } from "/assets/lib/numbers.js";
import { sides } from "/assets/panels/sample/stage.js";

const FILM = 16; // steps of the film at most

/**
 * detail({ onclose, ononly, onnear, onstep, onedit, say }) -> { element, open(job, k, view), close() }.
 *
 * ononly, onnear: draw this sample alone, or its neighbours. job.near: whether the job itself is of neighbours.
 */
export function detail({ onclose, ononly, onnear, onstep, onedit, say }) {
  const element = h("section", { class: "detail", "aria-label": "One sample", hidden: true });
  let turn = 0;

  function close() {
    turn++;
    element.hidden = true;
    element.replaceChildren();
  }

  /** job: { id, times, ready, shape, name, near }. */
  async function open(job, k, view) {
    const mine = ++turn;
    const facts = h("dl", { class: "facts" });
    const film = h("div", { class: "film", role: "group", "aria-label": "Steps of this sample" });
    const near = h("div", { class: "near" }, h("p", { class: "soft" }, "Comparing with the training images…"));
    const buttons = h("div", { class: "actions" });
    element.replaceChildren(
      h("div", { class: "bar" }, h("h2", {}, "Sample ", String(k)), h("button", { type: "button", class: "round", "aria-label": "Close", onclick: onclose }, icon("close"))),
      film,
      h("div", { class: "columns" }, h("div", {}, facts, buttons), near),
    );
    element.hidden = false;
    fillFilm(film, job, k, view, () => mine === turn);
    let said;
    try {
      said = await get(`/api/jobs/${job.id}/sample/${k}`);
    } catch (error) {
      if (mine === turn) near.replaceChildren(h("p", { class: "refusal" }, error.message));
      return;
    }
    if (mine !== turn) return;
    element.querySelector("h2").textContent = `Sample ${said.index}`;
    facts.replaceChildren(...pairs([["seed", said.seed], ["index", said.index], ["class", said.label_name ?? said.label]]));
    buttons.replaceChildren(
      h("button", { type: "button", onclick: () => ononly(said) }, "This sample only"),
      h("button", { type: "button", onclick: () => keep(job, k, said) }, "Save this image"),
      ...(job.near ? [] : [h("button", { type: "button", onclick: () => onnear(said) }, "Neighbours of its latent")]),
      h("button", { type: "button", onclick: () => onedit(job.id, k) }, "Send to Edit"),
    );
    const parts = [nearest(job, k, said)];
    if (said.probabilities) parts.push(probabilities(said.probabilities));
    near.replaceChildren(...parts);
  }

  async function keep(job, k, said) {
    try {
      save(await blob(`/api/jobs/${job.id}/picture.png?sample=${k}`), `${job.name}-seed-${said.seed}-index-${said.index}.png`);
    } catch (error) {
      say(error.message);
    }
  }

  function fillFilm(film, job, k, view, current) {
    const last = job.ready;
    const every = Math.max(1, Math.ceil(last / (FILM - 1)));
    const steps = Array.from({ length: last + 1 }, (_, i) => i).filter((i) => i % every === 0 && (last - i >= every || i === last));
    if (steps.at(-1) !== last) steps.push(last);
    const scale = scaleFor(job.shape[1], 64);
    film.replaceChildren(
      ...steps.map((i) => {
        const canvases = sides(view).map(() => h("canvas", { width: job.shape[1], height: job.shape[0] }));
        for (const canvas of canvases) show(canvas, job.shape[1], job.shape[0], scale);
        const one = h("button", { type: "button", class: "still", "aria-label": `Step ${i}`, onclick: () => onstep(i) }, ...canvases, h("span", { class: "caption" }, job.times.length ? time(job.times[i]) : String(i)));
        sides(view).forEach(async (what, j) => {
          try {
            const got = await frame(address(job.id, i, what));
            if (current()) draw(canvases[j], got, k);
          } catch {
            one.hidden = true; // a step that is no longer kept
          }
        });
        return one;
      }),
    );
  }

  function nearest(job, k, said) {
    if (said.nearest_refused) return h("p", { class: "soft" }, said.nearest_refused);
    if (!said.nearest?.length) return h("p", { class: "soft" }, "The training data is not here to compare with.");
    const scale = scaleFor(job.shape[1], 64);
    return h(
      "div",
      {},
      h("h3", {}, "Nearest training images"),
      h(
        "div",
        { class: "film" },
        ...said.nearest.map((one) => {
          const canvas = h("canvas", { width: job.shape[1], height: job.shape[0], role: "img", "aria-label": `Training image ${one.index}, distance ${short(one.distance)}` });
          show(canvas, job.shape[1], job.shape[0], scale);
          frame(`/api/jobs/${job.id}/sample/${k}/nearest/${one.index}`).then((got) => draw(canvas, got, 0), () => {});
          return h("figure", { class: one.copy ? "copy" : "" }, canvas, h("figcaption", { class: "caption" }, `${one.distance.toPrecision(3)}${one.copy ? " · a copy" : ""}`));
        }),
      ),
      h("p", { class: "soft" }, "Euclidean distances; the least is on the left."),
    );
  }

  return { element, open, close };
}

const pairs = (list) => list.filter(([, value]) => value !== null && value !== undefined).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]);

function probabilities(list) {
  return h(
    "div",
    {},
    h("h3", {}, "p(class) by the classifier"),
    h("dl", { class: "bars" }, ...list.flatMap(({ class: name, p }) => [h("dt", {}, String(name)), h("dd", {}, h("meter", { min: 0, max: 1, value: p, "aria-label": String(name) }), h("span", {}, p.toFixed(3)))])),
  );
}
