// Sample: choose how, see the cost, run, and look at every step of every image.

import { blob, events, get, pageName, post, remove, save, send } from "/assets/lib/api.js";
import { debounced, h, say } from "/assets/lib/dom.js";
import { count, seconds } from "/assets/lib/numbers.js";
import { detail } from "/assets/panels/sample/detail.js";
import { form } from "/assets/panels/sample/form.js";
import { empty, fromParams, fromRequest, same, toParams, toRequest } from "/assets/panels/sample/request.js";
import { stage } from "/assets/panels/sample/stage.js";
import { strip } from "/assets/panels/sample/strip.js";

let ctx;
let state = empty();
let offers = null; // what the run's samplers declare
let plan = null; // what the server says of the state
let running = null; // { abort } of the job under way
let job = null; // { id, request, times, ready, labels, run } of the job that is shown
let locked = true;
let changed = null; // the control that was changed last, beside which a refusal stands
let view; // { form, stage, detail, strip, run, cost, … }
let asked = 0;
let adopted = 0;
let front = false;

const card = (id) => ctx.server.runs.find((run) => run.id === id);

function mount(root, context) {
  ctx = context;
  const button = h("button", { type: "button", class: "run", disabled: true, onclick: () => (running ? stop() : run()) }, "Run");
  const cost = h("span", { class: "cost" });
  const caution = h("p", { class: "soft caution", hidden: true });
  const ended = h("p", { class: "unseen", role: "status" });
  const refusal = h("p", { class: "refusal", hidden: true });
  const open = h("input", { type: "file", accept: "image/png", class: "unseen", onchange: () => { restore(open.files[0]); open.value = ""; } });
  const command = h("code", { class: "command", tabindex: 0, "aria-label": "The command" });
  view = {
    button,
    cost,
    ended,
    caution,
    refusal,
    command,
    form: form({ onchange: change, locked: () => locked, onlock: (on) => { locked = on; } }),
    stage: stage({ onpick: pick, onview: () => { keep(); if (picked !== null) look(); }, onstep: keep }),
    detail: detail({ onclose: () => pick(null), ononly: only, onstep: (i) => { view.stage.at(i); keep(); }, onedit: ctx.panels.includes("edit") ? (id, k) => ctx.go("edit", { job: id, sample: k }) : null, say: ctx.toast }),
    strip: strip({ onopen: reopen }),
    save: h("button", { type: "button", disabled: true, onclick: savePicture }, "Save picture"),
    take: h("button", { type: "button", hidden: true, onclick: () => adopt(job.request) }, "Use these settings"),
  };
  root.append(
    h("form", { class: "side", "aria-label": "How to sample", onsubmit: (event) => { event.preventDefault(); run(); } }, view.form.element, h("div", { class: "launch" }, button, cost, refusal, caution, ended)),
    h(
      "div",
      { class: "work" },
      view.stage.element,
      h("div", { class: "actions" },
        view.save,
        h("label", { class: "as-button" }, open, h("span", {}, "Open a saved picture")),
        h("button", { type: "button", onclick: () => copy("command") }, "Copy as command"),
        h("button", { type: "button", onclick: () => copy("python") }, "Copy as Python"),
        view.take),
      command,
      view.detail.element,
      view.strip.element,
    ),
  );
  root.addEventListener("dragover", (event) => { event.preventDefault(); root.classList.add("dropping"); });
  root.addEventListener("dragleave", (event) => { if (!root.contains(event.relatedTarget)) root.classList.remove("dropping"); });
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    root.classList.remove("dropping");
    if (event.dataTransfer.files.length) restore(event.dataTransfer.files[0]);
  });
  addEventListener("keydown", (event) => {
    if (!front) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    if (event.key === "Escape" && running) stop();
  });
}

async function show(params) {
  front = true;
  const wanted = fromParams(params);
  const before = adopted;
  const runs = await ctx.runs(state.run === null);
  if (adopted !== before) return; // a picture was dropped meanwhile
  const possible = runs.filter(({ can, problem }) => !problem && !can.sample);
  if (!possible.length) return nothing(runs);
  if (wanted.run === null || !possible.some(({ id }) => id === wanted.run)) wanted.run = possible[0].id;
  view.stage.setView(["x0", "x", "both"].includes(params.what) ? params.what : view.stage.view);
  const first = offers === null;
  if (first) {
    view.stage.title(card(wanted.run).name);
    view.stage.empty("Opening the run…");
  }
  await adopt(wanted, false);
  if (first) await comeBack(params);
}

function hide() {
  front = false;
}

/** What to do where no run can be sampled. */
function nothing(runs) {
  view.form.show({ ...state, run: null }, runs, null);
  view.button.disabled = true;
  const demo = ctx.server.demo;
  view.stage.title("No run to sample yet");
  view.stage.empty(
    runs.length
      ? "None of the runs here can be sampled; the list on the left says why."
      : `There is no run in ${ctx.server.root}/. Train the demo in a terminal with \`scorefield train ${demo?.recipe ?? "portraits"}\` (${demo?.minutes_text ?? "some minutes"} on two cores), and load this page again.`,
  );
}

/** Take a state, and ask what its run offers. */
async function adopt(next, write = true) {
  const mine = ++adopted;
  const other = next.run !== state.run || offers === null;
  state = { ...empty(), ...fromRequest(next) };
  if (other) {
    try {
      const found = await get(`/api/runs/${state.run}/sampling`);
      if (mine !== adopted) return;
      offers = found;
    } catch (error) {
      if (mine !== adopted) return;
      offers = null;
      view.form.show(state, ctx.server.runs, null);
      view.form.say("run", error.message);
      return;
    }
  }
  draw();
  if (write) keep();
  await ask();
}

function draw() {
  view.form.show(state, ctx.server.runs, offers);
}

async function change(name, changes) {
  changed = name;
  const { redraw, ...kept } = changes;
  if (kept.run !== undefined && kept.run !== state.run) return adopt({ ...empty(), run: kept.run, n: state.n, seed: state.seed });
  Object.assign(state, kept);
  if (redraw) draw();
  keep();
  later();
}

const later = debounced(() => ask(), 150);

/** What the state costs, and whether it goes. */
async function ask() {
  const mine = ++asked;
  let said;
  try {
    said = await post("/api/plan", toRequest(state));
  } catch (error) {
    said = { refused: error.message };
  }
  if (mine !== asked) return;
  plan = said;
  const beside = view.form.say(said.refused ? changed : null, said.refused) && said.refused;
  view.refusal.hidden = !said.refused || beside;
  say(view.refusal, said.refused ?? "");
  say(view.command, said.command ?? "");
  if (!running) face();
  if (!running && !job) preview();
  if (said.refused) return;
  view.form.implied(said);
  view.caution.hidden = !said.caution;
  say(view.caution, said.caution ?? "");
}

/** What a plan costs, in words. Blocks share no calls. */
function cost({ calls, blocks, seconds: time }) {
  const made = `${count(calls, "network call")}${blocks > 1 ? ` × ${blocks} blocks` : ""}`;
  return time === null ? made : `${made}, about ${seconds(time)}`;
}

function face() {
  view.button.disabled = !running && (!plan || Boolean(plan.refused));
  say(view.button, running ? "Stop" : "Run");
  view.button.classList.toggle("stop", Boolean(running));
  if (running) return;
  say(view.cost, plan && !plan.refused ? cost(plan) : "");
}

const size = (request) => request.indices?.length ?? request.n ?? offers?.defaults.n ?? 16;

/** Lay the stage out for what the state would make. */
function preview() {
  lay(state, null);
  view.save.hidden = card(state.run).shape.length !== 3;
  view.stage.title(card(state.run).name);
  view.stage.empty(plan.refused ? "" : `Press Run, or Ctrl+Enter, to see ${size(state)} samples of ${card(state.run).name} take shape.`);
  view.stage.scrub.times(plan.times ?? []);
}

function lay(request, labels) {
  const { shape, classes } = card(request.run);
  const n = size(request);
  const chosen = request.labels ?? (classes ? classes.map((_, i) => i) : null);
  const own = labels ?? (chosen ? Array.from({ length: n }, (_, k) => chosen[(request.indices?.[k] ?? k) % chosen.length]) : null);
  const named = own && classes ? own.map((label) => classes[label] ?? String(label)) : null;
  const names = Array.from({ length: n }, (_, k) => `sample ${request.indices?.[k] ?? k}${named ? `, ${named[k]}` : ""}`);
  view.stage.lay({ n, shape, names, captions: named && n <= 32 ? named : null, classes: chosen?.length ?? 1 });
}

function title(request, times) {
  const sampler = request.sampler ?? offers?.defaults.sampler;
  return `${sampler} · ${count(times.length - 1, "step")} · seed ${request.seed ?? 0}`;
}

async function run() {
  if (running || !plan || plan.refused) return;
  if (!locked) {
    state.seed = crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000;
    draw();
    keep();
  }
  const abort = new AbortController();
  running = { abort };
  const request = toRequest(state);
  pick(null);
  face();
  say(view.cost, "starting");
  say(view.ended, "");
  try {
    const made = await post("/api/jobs", { page: pageName(), kind: "sample", request });
    running.id = made.id;
    job = { id: made.id, request, times: made.times, ready: 0, run: state.run };
    grids.set(made.id, made.times);
    lay(request, null);
    view.stage.begin(made.id, made.times);
    view.stage.title(title(request, made.times));
    view.save.disabled = true;
    view.save.hidden = card(state.run).shape.length !== 3;
    view.take.hidden = true;
    if (innerWidth < 760) view.stage.element.scrollIntoView({ block: "start" });
    await follow(job, abort.signal);
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  } finally {
    running = null;
    face();
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
      mine.ready = event.i;
      view.stage.step(event.i, event.i === mine.times.length - 1);
      say(view.cost, `step ${event.i} of ${mine.times.length - 1}, ${seconds((performance.now() - start) / 1000)}`);
    }
    if (event.event === "done") {
      Object.assign(mine, { ms: event.ms, calls: event.calls, sha256: event.sha256, labels: event.labels, done: true });
      view.save.disabled = false;
      await view.stage.settled();
      say(view.ended, `Done: ${count(size(mine.request), "sample")}, seed ${mine.request.seed ?? 0}.`);
      lay(mine.request, event.labels);
      keep();
      await list();
    }
    if (event.event === "refused") fail(event.error);
    if (event.event === "cancelled") ctx.toast(`Stopped after ${count(mine.ready, "step")}.`);
  }
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

// One image

let picked = null;

function pick(k) {
  if (k === null || k === picked) {
    if (picked !== null) view.detail.close();
    picked = null;
    view.stage.pick(null);
    return keep();
  }
  if (!job?.ready) return;
  picked = k;
  view.stage.pick(k);
  look();
  keep();
}

function look() {
  const { shape, name } = card(job.request.run);
  view.detail.open({ id: job.id, times: job.times, ready: job.ready, shape, name }, picked, view.stage.view);
}

function only({ index }) {
  state = fromRequest({ ...job.request, indices: [index] });
  changed = "indices";
  draw();
  keep();
  ask().then(run);
}

// Earlier runs of the page

function list() {
  return view.strip.refresh(job?.id, async ({ id, request }) => ({
    text: `${request.sampler ?? offers.defaults.sampler} · ${request.seed}`,
    steps: (await timesOf(id, request)).length - 1,
    shape: card(request.run)?.shape ?? [],
  }));
}

const grids = new Map(); // job -> the times of its grid

async function timesOf(id, request) {
  if (!grids.has(id)) grids.set(id, (await post("/api/plan", request)).times);
  return grids.get(id);
}

/** Show an earlier run; the controls keep what they have. */
async function reopen(earlier) {
  if (running) return;
  const times = await timesOf(earlier.id, earlier.request);
  job = { id: earlier.id, request: earlier.request, times, ready: times.length - 1, done: true, calls: earlier.calls, ms: earlier.ms };
  pick(null);
  lay(job.request, null);
  view.stage.begin(earlier.id, times);
  view.stage.title(title(job.request, times));
  view.stage.step(job.ready, true);
  view.save.disabled = false;
  view.save.hidden = card(job.request.run).shape.length !== 3;
  view.take.hidden = same(state, job.request, offers.defaults);
  list();
}

/** After a reload: the last run that this state made, where the server still has it. */
async function comeBack(params) {
  const jobs = await list();
  const found = jobs.find(({ request }) => same(request, state, offers.defaults));
  if (!found) return;
  await reopen(found);
  if (params.step) view.stage.at(Math.min(Number(params.step), job.ready));
  if (params.sample) pick(Math.min(Number(params.sample), size(job.request) - 1));
}

// Out and in

async function savePicture() {
  try {
    const { name } = card(job.request.run);
    save(await blob(`/api/jobs/${job.id}/picture.png`), `${name}-seed-${job.request.seed ?? 0}.png`);
  } catch (error) {
    ctx.toast(error.message);
  }
}

async function restore(file) {
  if (!file) return;
  try {
    const { request, note } = await send("/api/settings", file);
    await adopt(request);
    ctx.toast(`The settings of ${file.name} are back, with its seed ${request.seed ?? 0}.${note ? ` Note: ${note}.` : ""}`);
  } catch (error) {
    fail(`${file.name}: ${error.message}`);
  }
}

async function copy(what) {
  if (!plan || plan.refused) return ctx.toast("There is nothing to copy: what is chosen does not go together.");
  await navigator.clipboard.writeText(plan[what]);
  ctx.toast(what === "command" ? "The command is copied. It writes the same bytes." : "The lines of Python are copied. They make the same bytes.");
}

/** Write the state into the address. */
function keep() {
  if (state.run === null) return;
  const at = job?.done && view.stage.scrub.value < job.ready ? view.stage.scrub.value : null;
  ctx.keep({ ...toParams(state), what: view.stage.view === "x0" ? null : view.stage.view, step: at, sample: picked });
}

export default { id: "sample", title: "Sample", mount, show, hide };
