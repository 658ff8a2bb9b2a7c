// Edit: fill in part of an image, send an image to its latent and back, walk between two images or seeds.

import { get, post } from "/assets/lib/api.js";
import { segments } from "/assets/lib/controls.js";
import { debounced, dropTarget, h, say } from "/assets/lib/dom.js";
import { cost, launcher } from "/assets/lib/job.js";
import { count } from "/assets/lib/numbers.js";
import { files } from "/assets/panels/edit/files.js";
import { FILLINGS, fillings } from "/assets/panels/edit/fillings.js";
import { FRAMES, flowForm } from "/assets/panels/edit/flow_form.js";
import { maskEditor } from "/assets/panels/edit/mask.js";
import { picker } from "/assets/panels/edit/picker.js";
import { asked, params } from "/assets/panels/edit/request.js";
import { encoded, walked } from "/assets/panels/edit/results.js";
import { form } from "/assets/panels/sample/form.js";
import { empty, fromParams, newSeed } from "/assets/panels/sample/request.js";

const TASKS = [
  { value: "fill", text: "Fill", title: "Fill in part of an image" },
  { value: "encode", text: "Encode", title: "An image to its latent and back" },
  { value: "walk", text: "Walk", title: "Walk between two images or seeds" },
];

let ctx;
let task = "fill";
let state = empty(); // the SampleRequest of fillings
let own = { label: null, steps: null, frames: FRAMES }; // what the other tasks ask for
let offers = null;
let plan = null;
let made = 0; // steps of the job that was started last
let changed = null;
let turn = 0;
let front = false;
let locked = true;
let following = true; // whether the class is that of the image
let view;

const card = (id) => ctx.server.runs.find((run) => run.id === id);
const wish = () => asked(task, state, own, view);
const possible = () => ctx.server.runs.filter(({ can, problem }) => !problem && !can.edit && !can.sample);

function mount(root, context) {
  ctx = context;
  view = {
    heading: h("h1", {}, "Edit"),
    command: h("code", { class: "command", tabindex: 0, "aria-label": "The command" }),
    launch: launcher({ onrun: run, onstopped: () => ctx.toast(`Stopped after ${count(made, "step")}.`) }),
    tasks: segments({ legend: "Task", options: TASKS, value: task, onchange: turnTo }),
    form: form({ cannot: "of the runs here cannot be edited", onchange: change, locked: () => locked, onlock: (on) => { locked = on; } }),
    flow: flowForm({ onrun: (run) => change("run", { run }), onchange: changeFlow }),
    mask: maskEditor({ onchange: painted }),
    fillings: fillings({ card, onagain: bring, onsave: ({ id, request }, k) => view.files.picture(id, k, `${card(request.run).name}-filled-seed-${request.seed ?? 0}.png`) }),
    encoded: encoded(),
    walked: walked(),
    picker: picker({ label: "Image", onchange: chosen }),
    from: picker({ label: "From", kind: "seed", seed: 0, onchange: () => { keep(); later(); } }),
    to: picker({ label: "To", kind: "seed", seed: 1, onchange: () => { keep(); later(); } }),
  };
  view.files = files({ pickers: view, mask: view.mask, toast: ctx.toast });
  view.desk = h("div", { class: "desk" }, view.mask.element, view.fillings.stage.element);
  view.choice = h("div", { class: "chosen" }, view.picker.element);
  view.ends = h("div", { class: "ends" }, view.from.element, view.to.element);
  root.append(
    h("form", { class: "side", "aria-label": "How to edit", onsubmit: (event) => { event.preventDefault(); run(); } }, view.form.element, view.flow.element, view.launch.element),
    h(
      "div",
      { class: "work" },
      h("div", { class: "bar" }, view.heading, view.tasks.element),
      view.choice,
      view.ends,
      view.desk,
      view.encoded.element,
      view.walked.element,
      h("div", { class: "actions" }, view.fillings.again, view.fillings.picture, view.files.saving, ...view.files.copying),
      view.command,
    ),
  );
  dropTarget(root, (file, target) => (task !== "walk" ? view.picker : view.to.element.contains(target) ? view.to : view.from).file(file));
  addEventListener("keydown", (event) => {
    if (!front) return;
    const typing = event.target.matches?.("input:not([type=range], [type=radio], [type=checkbox]), select, textarea");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    else if (event.key === "Escape" && view.launch.busy) view.launch.stop();
    else if (task === "fill" && !typing && view.mask.key(event)) event.preventDefault();
  });
}

async function show(address) {
  front = true;
  await ctx.runs(state.run === null);
  if (!possible().length) return nothing();
  if (address.job) return bring(address.job, Number(address.sample ?? 0));
  const wanted = fromParams(address);
  if (!possible().some(({ id }) => id === wanted.run)) wanted.run = possible()[0].id;
  task = TASKS.some(({ value }) => value === address.task) ? address.task : "fill";
  own = { label: address.label ? Number(address.label) : null, steps: wanted.steps, frames: Number(address.frames) || FRAMES };
  view.picker.restore(address.image);
  view.from.restore(address.from);
  view.to.restore(address.to);
  following = address.labels === undefined && address.label === undefined;
  await adopt(wanted);
  following ||= state.labels?.length === 1 && state.labels[0] === view.picker.image?.label;
  if (address.mask && view.picker.image) {
    view.mask.take(address.mask.split(",").map(Number));
    await ask();
  }
}

function hide() {
  front = false;
  view.walked.stop();
}

/** A sample of this page's job, as the image to edit; the mask stays. */
async function bring(id, k) {
  try {
    const found = await post(`/api/edit/jobs/${id}/sample/${k}`, {});
    task = "fill";
    const other = offers === null || state.run !== found.run;
    if (other) state = { ...empty(), run: found.run };
    await view.picker.take(found.run, found, "sample");
    await adopt(state, !other);
    keep();
  } catch (error) {
    ctx.toast(error.message);
    if (offers === null) await show({});
  }
}

function nothing() {
  const runs = ctx.server.runs;
  view.form.show({ ...state, run: null }, asRuns(runs), null);
  for (const part of [view.flow.element, view.choice, view.ends, view.desk, view.encoded.element, view.walked.element]) part.hidden = true;
  say(view.heading, "No run to edit images with yet");
  view.launch.offer(false, runs.length ? "None of the runs here edits images; the list above says why." : `There is no run in ${ctx.server.root}/. Train the demo first.`);
}

/** The runs with the reason why their images are not edited in the place of why they are not sampled. */
const asRuns = (runs) => runs.map((run) => ({ ...run, can: { ...run.can, sample: run.can.edit ?? run.can.sample } }));

/** Take a state, ask what its run offers, and fit the images to it. */
async function adopt(next, same = false) {
  state = next;
  face();
  if (same) return draw(), ask();
  view.fillings.clear();
  try {
    offers = await get(`/api/runs/${state.run}/sampling`);
    offers.defaults.n = FILLINGS;
  } catch (error) {
    offers = null;
    draw();
    view.form.say("run", error.message);
    return;
  }
  draw();
  await Promise.all([view.picker, view.from, view.to].map((one) => one.load(state.run)));
  draw();
  preview();
  await ask();
}

/** The controls of the task. */
function draw() {
  const fills = task === "fill";
  view.form.element.hidden = !fills;
  view.flow.element.hidden = fills;
  const runs = asRuns(ctx.server.runs);
  (fills ? view.flow : view.form).element.replaceChildren();
  if (fills) return view.form.show(state, runs, offers);
  const options = runs.map(({ id, name, can, problem }) => ({ value: String(id), text: name, refused: problem ?? can.sample }));
  view.flow.show(task, own, options, state.run, offers);
}

/** What the task shows. */
function face() {
  const { title } = TASKS.find(({ value }) => value === task);
  say(view.heading, title);
  view.tasks.set(task);
  view.choice.hidden = task === "walk";
  view.ends.hidden = task !== "walk";
  view.desk.hidden = task !== "fill";
  view.fillings.show(task === "fill");
  view.encoded.element.hidden = task !== "encode";
  view.walked.element.hidden = task !== "walk";
}

function turnTo(next) {
  if (view.launch.busy) view.launch.stop();
  task = next;
  own.label ??= view.picker.image?.label ?? null;
  face();
  draw();
  keep();
  preview();
  ask();
}

/** The image has come, or is gone. */
function chosen() {
  const { image } = view.picker;
  if (image) {
    view.mask.image(image.pixels);
    view.encoded.image(image.pixels);
    if (following && offers?.labels) {
      state.labels = image.label === null ? null : [image.label];
      own.label = image.label;
      draw();
    }
  }
  view.fillings.clear();
  keep();
  preview();
  later();
}

/** The mask has changed. */
function painted() {
  if (plan?.missing && !wish().missing) {
    plan = null; // the sentence that asks for a mask goes at once
    press();
  }
  keep();
  later();
}

function change(name, { redraw, ...changes }) {
  changed = name;
  if (changes.run !== undefined && changes.run !== state.run) {
    following = true;
    own = { ...own, label: null, steps: null };
    keep();
    return adopt({ ...empty(), run: changes.run, seed: state.seed, n: state.n });
  }
  Object.assign(state, changes);
  if (name === "labels") following = false;
  if (redraw) draw();
  if (name === "n" || name === "labels") preview();
  keep();
  later();
}

/** A control of Encode or Walk has changed. */
function changeFlow(name) {
  if (name === "label") following = false;
  if (name === "frames") preview();
  keep();
  later();
}

const later = debounced(() => ask(), 150);

/** What it costs, and whether it goes. */
async function ask() {
  const mine = ++turn;
  const { request: wanted, missing } = wish();
  let said = { refused: null, missing };
  if (wanted) {
    try {
      said = await post("/api/edit/plan", { kind: task, request: wanted });
    } catch (error) {
      said = { refused: error.message };
    }
  }
  if (mine !== turn) return;
  plan = said;
  const beside = task === "fill" && view.form.say(said.refused ? changed : null, said.refused) && said.refused;
  view.launch.refuse(beside ? null : said.refused);
  view.launch.caution(said.caution);
  say(view.command, said.command ?? "");
  if (said.times && !said.refused) {
    view.form.implied(said);
    if (view.fillings.empty && !view.launch.busy) view.fillings.stage.scrub.times(said.times);
  }
  press();
}

function press() {
  const ready = plan && !plan.refused && !plan.missing;
  view.launch.offer(Boolean(ready), plan?.missing ?? (ready && plan.calls ? cost(plan) : ""));
  view.files.show(task, plan);
}

/** Make room for what the task will make. */
function preview() {
  if (state.run === null || view.launch.busy) return;
  if (task === "walk") view.walked.lay(card(state.run).shape, Math.max(2, Math.min(64, own.frames ?? FRAMES)));
  if (task === "fill" && view.fillings.empty) view.fillings.preview(state);
}

async function run() {
  const { request: wanted } = wish();
  if (view.launch.busy || !wanted || !plan || plan.refused) return;
  if (!locked && task === "fill") {
    state.seed = wanted.seed = newSeed();
    draw();
    keep();
  }
  const { calls } = plan;
  made = 0;
  view.fillings.pick(null);
  const done = {
    fill: () => (view.fillings.done(), count(wanted.n, "filling")),
    encode: async (id, event) => (await view.encoded.done(id, event), "encoded and decoded"),
    walk: async (id, event) => (await view.walked.done(id, wanted.frames, event), count(wanted.frames, "frame")),
  }[task];
  const of = task === "fill" ? view.fillings.step : ({ of: steps }) => calls ?? steps;
  let id = null;
  await view.launch.start({ kind: task, request: wanted }, {
    made(job) {
      id = job.id;
      if (task === "fill") view.fillings.begin(job, wanted);
    },
    step(event) {
      made = event.i;
      return of(event);
    },
    done: async (event) => view.launch.ended(`Done: ${await done(id, event)}.`),
  });
}

/** Write the state into the address. */
function keep() {
  if (state.run !== null) ctx.keep(params(task, state, own, view));
}

export default { id: "edit", title: "Edit", mount, show, hide };
