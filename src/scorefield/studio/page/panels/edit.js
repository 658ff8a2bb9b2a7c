// Edit: fill in part of an image, send an image to its latent and back, walk between two images or seeds.

import { blob, events, get, pageName, post, remove, save } from "/assets/lib/api.js";
import { field, number, refusals, segments, select } from "/assets/lib/controls.js";
import { debounced, h, say } from "/assets/lib/dom.js";
import { count, seconds } from "/assets/lib/numbers.js";
import { maskEditor } from "/assets/panels/edit/mask.js";
import { picker } from "/assets/panels/edit/picker.js";
import { encoded, walked } from "/assets/panels/edit/results.js";
import { form } from "/assets/panels/sample/form.js";
import { empty, fromParams, toParams, toRequest } from "/assets/panels/sample/request.js";
import { stage } from "/assets/panels/sample/stage.js";

const TASKS = [
  { value: "fill", text: "Fill", title: "Fill in part of an image" },
  { value: "encode", text: "Encode", title: "An image to its latent and back" },
  { value: "walk", text: "Walk", title: "Walk between two images or seeds" },
];
const FILLINGS = 6;
const FRAMES = 16;
const LONGEST = 800; // characters of a mask in the address

let ctx;
let task = "fill";
let state = empty(); // the SampleRequest of fillings
let own = { label: null, steps: null, frames: FRAMES }; // what the other tasks ask for
let offers = null;
let plan = null;
let running = null; // { id, abort } of the job under way
let job = null; // { id, task, … } of the job that is shown
let changed = null;
let asked = 0;
let front = false;
let locked = true;
let following = true; // whether the class is that of the image
let view;

const card = (id) => ctx.server.runs.find((run) => run.id === id);
const possible = () => ctx.server.runs.filter(({ can, problem }) => !problem && !can.edit && !can.sample);

function mount(root, context) {
  ctx = context;
  const button = h("button", { type: "button", class: "run", disabled: true, onclick: () => (running ? stop() : run()) }, "Run");
  view = {
    button,
    cost: h("span", { class: "cost" }),
    refusal: h("p", { class: "refusal", hidden: true }),
    caution: h("p", { class: "soft caution", hidden: true }),
    ended: h("p", { class: "unseen", role: "status" }),
    command: h("code", { class: "command", tabindex: 0, "aria-label": "The command" }),
    heading: h("h1", {}, "Edit"),
    tasks: segments({ legend: "Task", options: TASKS, value: task, onchange: (next) => turnTo(next) }),
    form: form({ cannot: "of the runs here cannot be edited", onchange: change, locked: () => locked, onlock: (on) => { locked = on; } }),
    plain: h("div", { class: "groups" }),
    mask: maskEditor({ onchange: painted }),
    stage: stage({ onpick: pick, onview: () => {}, onstep: () => {} }),
    encoded: encoded(),
    walked: walked(),
    picker: picker({ label: "Image", onchange: chosen }),
    from: picker({ label: "From", kind: "seed", seed: 0, onchange: () => { keep(); later(); } }),
    to: picker({ label: "To", kind: "seed", seed: 1, onchange: () => { keep(); later(); } }),
    files: h("button", { type: "button", onclick: saveFiles }, "Save image.png and mask.png"),
    picture: h("button", { type: "button", disabled: true, onclick: savePicture }, "Save picture"),
    again: h("button", { type: "button", hidden: true, onclick: editFilling }, "Edit this filling"),
  };
  view.desk = h("div", { class: "desk" }, view.mask.element, view.stage.element);
  view.choice = h("div", { class: "chosen" }, view.picker.element);
  view.ends = h("div", { class: "ends" }, view.from.element, view.to.element);
  root.append(
    h("form", { class: "side", "aria-label": "How to edit", onsubmit: (event) => { event.preventDefault(); run(); } }, view.form.element, view.plain, h("div", { class: "launch" }, button, view.cost, view.refusal, view.caution, view.ended)),
    h(
      "div",
      { class: "work" },
      h("div", { class: "bar" }, view.heading, view.tasks.element),
      view.choice,
      view.ends,
      view.desk,
      view.encoded.element,
      view.walked.element,
      h("div", { class: "actions" },
        view.again,
        view.picture,
        view.files,
        h("button", { type: "button", onclick: () => copy("command") }, "Copy as command"),
        h("button", { type: "button", onclick: () => copy("python") }, "Copy as Python")),
      view.command,
    ),
  );
  root.addEventListener("dragover", (event) => { event.preventDefault(); root.classList.add("dropping"); });
  root.addEventListener("dragleave", (event) => { if (!root.contains(event.relatedTarget)) root.classList.remove("dropping"); });
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    root.classList.remove("dropping");
    const target = task !== "walk" ? view.picker : view.to.element.contains(event.target) ? view.to : view.from;
    if (event.dataTransfer.files.length) target.file(event.dataTransfer.files[0]);
  });
  addEventListener("keydown", (event) => {
    if (!front) return;
    const typing = event.target.matches?.("input:not([type=range], [type=radio], [type=checkbox]), select, textarea");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    else if (event.key === "Escape" && running) stop();
    else if (task === "fill" && !typing && view.mask.key(event)) event.preventDefault();
  });
}

async function show(params) {
  front = true;
  await ctx.runs(state.run === null);
  if (!possible().length) return nothing();
  if (params.job) return bring(params.job, Number(params.sample ?? 0));
  const wanted = fromParams(params);
  if (!possible().some(({ id }) => id === wanted.run)) wanted.run = possible()[0].id;
  task = TASKS.some(({ value }) => value === params.task) ? params.task : "fill";
  own = { label: params.label ? Number(params.label) : null, steps: wanted.steps, frames: Number(params.frames) || FRAMES };
  view.picker.restore(params.image);
  view.from.restore(params.from);
  view.to.restore(params.to);
  following = params.labels === undefined && params.label === undefined;
  await adopt(wanted);
  following ||= state.labels?.length === 1 && state.labels[0] === view.picker.image?.label;
  if (params.mask && view.picker.image) {
    view.mask.take(params.mask.split(",").map(Number));
    await ask();
  }
}

function hide() {
  front = false;
  view.walked.stop();
}

/** A sample of this page's job, as the image to edit. */
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
  for (const part of [view.plain, view.choice, view.ends, view.desk, view.encoded.element, view.walked.element]) part.hidden = true;
  say(view.heading, "No run to edit images with yet");
  say(view.cost, runs.length ? "None of the runs here edits images; the list above says why." : `There is no run in ${ctx.server.root}/. Train the demo first.`);
}

/** The runs with the reason why their images are not edited in the place of why they are not sampled. */
const asRuns = (runs) => runs.map((run) => ({ ...run, can: { ...run.can, sample: run.can.edit ?? run.can.sample } }));

/** Take a state, ask what its run offers, and fit the images to it. */
async function adopt(next, same = false) {
  state = next;
  face();
  if (same) return draw(), ask();
  job = null;
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
  view.form.element.hidden = task !== "fill";
  view.plain.hidden = task === "fill";
  view.plain.replaceChildren();
  if (task === "fill") return view.form.show(state, asRuns(ctx.server.runs), offers);
  view.form.element.replaceChildren();
  const options = asRuns(ctx.server.runs).map(({ id, name, can, problem }) => ({ value: String(id), text: name, refused: problem ?? can.sample }));
  const control = select(options, String(state.run), (id) => change("run", { run: Number(id) }));
  const tell = (name) => (value) => { own[name] = value; keep(); later(); };
  const two = [field({ label: "Steps", hint: "Of the deterministic flow. More steps reconstruct an image better.", control: number({ value: own.steps, placeholder: offers?.defaults.steps ?? "", min: 1, max: 1000, step: 1 }, tell("steps")) })];
  if (task === "walk") two.push(field({ label: "Frames", control: number({ value: own.frames, min: 2, max: 64, step: 1 }, (value) => { tell("frames")(value); preview(); }) }));
  const classes = offers?.labels?.classes;
  if (classes) own.label ??= 0;
  const named = classes && field({ label: "Class", control: select(classes.map((text, i) => ({ value: String(i), text })), String(own.label), (value) => { following = false; tell("label")(Number(value)); }) });
  view.plain.replaceChildren(
    h("div", { class: "group" }, field({ label: "Run", control }).element, refusals(options, "of the runs here cannot be edited") ?? ""),
    h("div", { class: "group" }, h("div", { class: "two" }, ...two.map(({ element }) => element)), named?.element ?? ""),
  );
}

/** What the task shows. */
function face() {
  const { title } = TASKS.find(({ value }) => value === task);
  say(view.heading, title);
  view.tasks.set(task);
  view.choice.hidden = task === "walk";
  view.ends.hidden = task !== "walk";
  view.desk.hidden = view.picture.hidden = task !== "fill";
  view.encoded.element.hidden = task !== "encode";
  view.walked.element.hidden = task !== "walk";
  if (task !== "fill") view.again.hidden = true;
}

function turnTo(next) {
  if (running) stop();
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
  if (job?.task !== "walk") job = null;
  view.again.hidden = true;
  keep();
  preview();
  later();
}

/** The mask has changed. */
function painted() {
  if (plan?.missing && !request().missing) {
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

/** What is asked for: null where something is missing yet, and `missing` says what. */
function request() {
  if (task === "fill") {
    if (!view.picker.image) return { missing: "Choose an image first." };
    if (!view.mask.painted()) return { missing: "Paint on the image what is to be filled in." };
    return { request: { ...toRequest(state), n: state.n ?? FILLINGS, image: view.picker.image.id, mask: view.mask.lengths() } };
  }
  const chosen = Object.fromEntries(["label", "steps"].map((name) => [name, own[name]]).filter(([, value]) => value !== null));
  if (task === "encode") return view.picker.image ? { request: { run: state.run, image: view.picker.image.id, ...chosen } } : { missing: "Choose an image first." };
  const [a, b] = [view.from.value, view.to.value];
  return a === null || b === null ? { missing: "Choose both ends first." } : { request: { run: state.run, a, b, frames: own.frames ?? FRAMES, ...chosen } };
}

const later = debounced(() => ask(), 150);

/** What it costs, and whether it goes. */
async function ask() {
  const mine = ++asked;
  const { request: wanted, missing } = request();
  let said = { refused: null, missing };
  if (wanted) {
    try {
      said = await post("/api/edit/plan", { kind: task, request: wanted });
    } catch (error) {
      said = { refused: error.message };
    }
  }
  if (mine !== asked) return;
  plan = said;
  const beside = task === "fill" && view.form.say(said.refused ? changed : null, said.refused) && said.refused;
  view.refusal.hidden = !said.refused || Boolean(beside);
  say(view.refusal, said.refused ?? "");
  view.caution.hidden = !said.caution;
  say(view.caution, said.caution ?? "");
  say(view.command, said.command ?? "");
  if (said.times && !said.refused) {
    view.form.implied(said);
    if (job?.task !== "fill" && !running) view.stage.scrub.times(said.times);
  }
  press();
}

function press() {
  view.button.disabled = !running && (!plan || Boolean(plan.refused) || Boolean(plan.missing));
  say(view.button, running ? "Stop" : "Run");
  view.button.classList.toggle("stop", Boolean(running));
  const ends = Object.entries(images()).filter(([, one]) => one.image).map(([name]) => name);
  view.files.hidden = !ends.length;
  say(view.files, `Save ${[...ends, ...(task === "fill" ? ["mask.png"] : [])].join(" and ")}`);
  view.files.disabled = task === "fill" && !view.mask.painted();
  if (running) return;
  const made = (said) => `${count(said.calls, "network call")}${said.blocks > 1 ? ` × ${said.blocks} blocks` : ""}`;
  say(view.cost, plan?.missing ?? (plan && !plan.refused && plan.calls ? `${made(plan)}${plan.seconds ? `, about ${seconds(plan.seconds)}` : ""}` : ""));
}

/** Make room for what the task will make. */
function preview() {
  if (state.run === null || running) return;
  const { shape } = card(state.run);
  if (task === "walk") view.walked.lay(shape, Math.max(2, Math.min(64, own.frames ?? FRAMES)));
  if (task !== "fill" || job?.task === "fill") return;
  lay(state);
  view.stage.title("Fillings");
  view.stage.empty("");
}

/** Make room for fillings. */
function lay(wanted) {
  const { shape, classes } = card(wanted.run);
  const n = wanted.indices?.length ?? wanted.n ?? FILLINGS;
  const labels = wanted.labels ?? (classes ? classes.map((_, i) => i) : null);
  const named = labels && classes ? Array.from({ length: n }, (_, k) => classes[labels[k % labels.length]] ?? "") : null;
  const names = Array.from({ length: n }, (_, k) => `filling ${k}${named ? `, ${named[k]}` : ""}`);
  view.stage.lay({ n, shape, names, captions: named && labels.length > 1 ? named : null, classes: labels?.length ?? 1 });
}

async function run() {
  const { request: wanted } = request();
  if (running || !wanted || !plan || plan.refused) return;
  if (!locked && task === "fill") {
    state.seed = wanted.seed = crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000;
    draw();
    keep();
  }
  const abort = new AbortController();
  running = { abort };
  press();
  say(view.cost, "starting");
  say(view.ended, "");
  pick(null);
  try {
    const made = await post("/api/jobs", { page: pageName(), kind: task, request: wanted });
    running.id = made.id;
    job = { id: made.id, task, request: wanted, times: made.times, ready: 0 };
    if (task === "fill") {
      lay(wanted);
      view.stage.begin(made.id, made.times);
      view.stage.title(`Fillings · seed ${wanted.seed ?? 0}`);
      view.picture.disabled = true;
      if (innerWidth < 760) view.stage.element.scrollIntoView({ block: "start" });
    }
    await follow(job, abort.signal);
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  } finally {
    running = null;
    press();
    if (job?.ms !== undefined) say(view.cost, `${count(job.calls, "network call")} in ${seconds(job.ms / 1000)}`);
  }
}

/** Follow a job's events to its end. */
async function follow(mine, signal) {
  const start = performance.now();
  for await (const event of events(`/api/jobs/${mine.id}/events`, signal)) {
    if (job !== mine) return;
    if (event.event === "state" && event.state === "queued" && event.behind) say(view.cost, `waits for ${count(event.behind, "other job")}`);
    if (event.event === "step") {
      const last = mine.times ? mine.times.length - 1 : plan?.calls ?? event.of;
      mine.ready = event.i;
      if (mine.task === "fill") view.stage.step(event.i, event.i === last);
      say(view.cost, `step ${event.i} of ${last}, ${seconds((performance.now() - start) / 1000)}`);
    }
    if (event.event === "done") await finish(mine, event);
    if (event.event === "refused") fail(event.error);
    if (event.event === "cancelled") ctx.toast(`Stopped after ${count(mine.ready, "step")}.`);
  }
}

async function finish(mine, event) {
  Object.assign(mine, { ms: event.ms, calls: event.calls, done: true });
  if (mine.task === "encode") await view.encoded.done(mine.id, event);
  if (mine.task === "walk") await view.walked.done(mine.id, mine.request.frames, event);
  if (mine.task === "fill") view.picture.disabled = false;
  say(view.ended, `Done: ${{ fill: () => count(mine.request.n, "filling"), encode: () => "encoded and decoded", walk: () => count(mine.request.frames, "frame") }[mine.task]()}.`);
}

function fail(sentence) {
  view.refusal.hidden = false;
  say(view.refusal, sentence);
}

function stop() {
  const { id, abort } = running;
  if (id) remove(`/api/jobs/${id}`).catch(() => {});
  else abort.abort();
}

let picked = null;

function pick(k) {
  picked = k === picked ? null : k;
  view.stage.pick(picked);
  view.again.hidden = picked === null || !job?.done;
}

/** Take the chosen filling as the image; the mask stays. */
async function editFilling() {
  const [id, k] = [job.id, picked];
  pick(null);
  await bring(id, k);
}

// Out

/** The images that the command reads, by the name of their files. */
const images = () => (task === "walk" ? { "a.png": view.from, "b.png": view.to } : { "image.png": view.picker });

async function saveFiles() {
  try {
    for (const [name, { image }] of Object.entries(images())) if (image) save(await blob(`/api/edit/images/${image.id}/image.png`), name);
    if (task === "fill") save(await blob(`/api/edit/images/${view.picker.image.id}/mask.png`, { mask: view.mask.lengths() }), "mask.png");
  } catch (error) {
    ctx.toast(error.message);
  }
}

async function savePicture() {
  try {
    save(await blob(`/api/jobs/${job.id}/picture.png${picked === null ? "" : `?sample=${picked}`}`), `${card(job.request.run).name}-filled-seed-${job.request.seed ?? 0}.png`);
  } catch (error) {
    ctx.toast(error.message);
  }
}

async function copy(what) {
  if (!plan?.[what]) return ctx.toast("There is nothing to copy yet.");
  await navigator.clipboard.writeText(plan[what]);
  const files = { fill: "image.png and mask.png", encode: "image.png", walk: "a.png and b.png, where an end is an image" }[task];
  ctx.toast(`Copied. It reads ${files}, which the button beside it saves.`);
}

/** Write the state into the address. */
function keep() {
  if (state.run === null) return;
  const mask = view.mask.painted() ? view.mask.lengths().join(",") : "";
  const params = { task: task === "fill" ? null : task, image: view.picker.text === "0" ? null : view.picker.text };
  if (task === "fill") Object.assign(params, toParams(state), { mask: mask.length <= LONGEST ? mask : null });
  else Object.assign(params, { run: state.run, label: own.label, steps: own.steps });
  if (task === "walk") Object.assign(params, { image: null, from: view.from.text, to: view.to.text, frames: own.frames === FRAMES ? null : own.frames });
  ctx.keep(params);
}

export default { id: "edit", title: "Edit", mount, show, hide };
