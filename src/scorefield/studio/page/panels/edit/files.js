// What leaves the Edit panel: the images that the copied command reads, the picture of a job, the command and the Python.

import { blob, save } from "/assets/lib/api.js";
import { h, say } from "/assets/lib/dom.js";

const READS = { fill: "image.png and mask.png", encode: "image.png", walk: "a.png and b.png, where an end is an image" };

/**
 * files({ pickers, mask, toast }) -> { saving, copying, show(task, plan), picture(id, picked, name) }.
 *
 * pickers: { picker, from, to }. mask: the editor. saving, copying: buttons. plan: what the server says of the request, whose words are copied.
 */
export function files({ pickers, mask, toast }) {
  const saving = h("button", { type: "button", onclick: () => told(saveFiles) }, "Save image.png and mask.png");
  const copying = [["command", "Copy as command"], ["python", "Copy as Python"]].map(([what, text]) => h("button", { type: "button", onclick: () => copy(what) }, text));
  let task = "fill";
  let plan = null;

  /** The images that the command reads, by the name of their files. */
  const images = () => (task === "walk" ? { "a.png": pickers.from, "b.png": pickers.to } : { "image.png": pickers.picker });

  async function told(what) {
    try {
      await what();
    } catch (error) {
      toast(error.message);
    }
  }

  async function saveFiles() {
    for (const [name, { image }] of Object.entries(images())) if (image) save(await blob(`/api/edit/images/${image.id}/image.png`), name);
    if (task === "fill") save(await blob(`/api/edit/images/${pickers.picker.image.id}/mask.png`, { mask: mask.lengths() }), "mask.png");
  }

  async function copy(what) {
    if (!plan?.[what]) return toast("There is nothing to copy yet.");
    await navigator.clipboard.writeText(plan[what]);
    toast(`Copied. It reads ${READS[task]}, which the button beside it saves.`);
  }

  return {
    saving,
    copying,
    /** The files of this task, as far as they are there. */
    show(next, said) {
      task = next;
      plan = said;
      const names = Object.entries(images()).filter(([, one]) => one.image).map(([name]) => name);
      saving.hidden = !names.length;
      say(saving, `Save ${[...names, ...(task === "fill" ? ["mask.png"] : [])].join(" and ")}`);
      saving.disabled = task === "fill" && !mask.painted();
    },
    /** Save the picture of a job, or of one of its samples. */
    picture: (id, picked, name) => told(async () => save(await blob(`/api/jobs/${id}/picture.png${picked === null ? "" : `?sample=${picked}`}`), name)),
  };
}
