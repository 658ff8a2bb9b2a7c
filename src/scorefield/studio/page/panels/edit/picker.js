// Which image: one of the held-out set, a file, a sample of the page, or, for the end of a walk, a seed.

import { field, number, select } from "/assets/lib/controls.js";
import { post, send } from "/assets/lib/api.js";
import { h, say } from "/assets/lib/dom.js";
import { draw, frame, scaleFor, show } from "/assets/lib/frames.js";

const THUMB = 64; // CSS pixels

/**
 * picker({ label, kind, seed, onchange }) -> { element, load(run), take(run, answer), file(file), value, image, params }.
 *
 * kind: "held-out", or "seed" where seeds can be chosen. onchange: called once an image is there, or the seed changed.
 */
export function picker({ label, kind = "held-out", seed = null, onchange }) {
  const seeds = seed !== null;
  let run = null;
  let index = 0;
  let given = null; // the file of the user's
  let image = null; // what the server keeps: { id, shape, name, label, … }
  let turn = 0;
  const thumb = h("canvas", { class: "thumb", width: 1, height: 1, role: "img", "aria-label": `${label}: no image yet` });
  const open = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", class: "unseen", "aria-label": `${label}: open a file`, onchange: () => { if (open.files[0]) file(open.files[0]); open.value = ""; } });
  const opener = h("label", { class: "as-button" }, open, h("span", {}, "Open a file…"));
  const which = select(
    [...(seeds ? [{ value: "seed", text: "Seed" }] : []), { value: "held-out", text: "Held-out image" }, { value: "file", text: "File of yours" }, { value: "sample", text: "Sample" }],
    kind,
    (next) => turnTo(next),
  );
  const at = number({ value: 0, min: 0, step: 1 }, (value) => { index = value ?? 0; load(run); });
  at.setAttribute("aria-label", `${label}: number of the held-out image`);
  const number_ = number({ value: seed, min: 0, step: 1 }, (value) => { seed = value ?? 0; onchange(); });
  number_.setAttribute("aria-label", `${label}: seed`);
  const made = field({ label, control: which });
  const about = h("p", { class: "soft" });
  const element = h("div", { class: "picker" }, made.element, h("div", { class: "picked" }, thumb, h("div", { class: "choice" }, at, number_, opener, about)));
  element.append(element.querySelector(".refusal")); // below both, where it has room
  face();

  function face() {
    which.value = kind;
    which.querySelector("[value=sample]").hidden = kind !== "sample";
    at.hidden = kind !== "held-out";
    number_.hidden = kind !== "seed";
    opener.hidden = kind !== "file";
    thumb.hidden = kind === "seed";
  }

  function turnTo(next) {
    kind = next;
    face();
    made.say(null);
    if (kind !== "file" || given) return load(run);
    say(about, "PNG, JPEG or WebP, up to 8 MB."); // until there is a file the image stays
  }

  function file(next) {
    given = next;
    kind = "file";
    face();
    return load(run);
  }

  /** Ask for the image in the size of this run. */
  async function load(next) {
    run = next;
    if (run === null) return; // no run is open yet; the panel asks again once it is
    if (kind === "seed") {
      image = null;
      say(about, "Sample 0 of this seed.");
      return onchange();
    }
    if (kind === "sample" && image?.run !== run) kind = "held-out";
    face();
    if (kind === "sample" || (kind === "file" && !given)) return onchange();
    const mine = ++turn;
    try {
      const found = kind === "file" ? await send(`/api/edit/images?run=${run}`, given) : await post(`/api/edit/held-out?run=${run}&index=${index}`, {});
      if (mine === turn) await take(run, found);
    } catch (error) {
      if (mine !== turn) return;
      made.say(kind === "file" ? `${given.name}: ${error.message}` : error.message);
      if (kind === "file") given = null;
      if (image?.run !== run) image = null;
      onchange();
    }
  }

  /** Show an image that the server keeps. */
  async function take(next, found, as = kind) {
    run = next;
    kind = as;
    face();
    const pixels = await frame(`/api/edit/images/${found.id}/pixels`);
    image = { ...found, pixels, name: kind === "file" ? given.name : found.name };
    made.say(null);
    draw(thumb, pixels, 0);
    show(thumb, pixels.w, pixels.h, scaleFor(pixels.w, THUMB));
    thumb.setAttribute("aria-label", `${label}: ${image.name}`);
    const said = [kind === "held-out" ? `of ${found.count.toLocaleString("en")}` : image.name, found.label_name, ...found.notes];
    say(about, said.filter(Boolean).join(" · "));
    onchange();
  }

  return {
    element,
    load,
    take,
    file,
    /** What a walk takes as an end: a seed or the id of an image; null where there is none. */
    get value() {
      return kind === "seed" ? seed : (image?.id ?? null);
    },
    get image() {
      return image;
    },
    get name() {
      return kind === "seed" ? `seed ${seed}` : (image?.name ?? "");
    },
    /** The choice as text of the address, where a link can restore it: s5 is a seed, 7 a held-out image. */
    get text() {
      return kind === "seed" ? `s${seed}` : kind === "held-out" ? String(index) : null;
    },
    /** Take a choice from such text; whether it was one. */
    restore(text) {
      const found = /^(s?)(\d{1,9})$/.exec(text ?? "");
      if (!found || (found[1] && !seeds)) return false;
      kind = found[1] ? "seed" : "held-out";
      if (found[1]) number_.value = seed = Number(found[2]);
      else at.value = index = Number(found[2]);
      face();
      return true;
    },
  };
}
