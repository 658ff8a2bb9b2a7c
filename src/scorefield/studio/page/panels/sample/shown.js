// What the Sample panel shows: a job of this page step by step, one of its samples, and the last jobs.

import { blob, post, save } from "/assets/lib/api.js";
import { h } from "/assets/lib/dom.js";
import { count } from "/assets/lib/numbers.js";
import { detail } from "/assets/panels/sample/detail.js";
import { same } from "/assets/panels/sample/request.js";
import { stage } from "/assets/panels/sample/stage.js";
import { strip } from "/assets/panels/sample/strip.js";

const NEAR = 0.2; // how near the latents of neighbours are at first

/**
 * shown({ ctx, offers, state, busy, keep, use, run }) -> the parts of the panel and what is done with them.
 *
 * offers(), state(): what the run offers and what is chosen, now. busy(): whether a job is under way. keep(): write the
 * address. use(request): take the settings of an earlier job. run(request): take these settings and run.
 */
export function shown({ ctx, offers, state, busy, keep, use, run }) {
  let job = null; // { id, request, times, ready, done, calls, ms }
  let picked = null; // the sample that is shown large
  const grids = new Map(); // job -> the times of its grid
  const card = (id) => ctx.server.runs.find((run) => run.id === id);

  const screen = stage({ onpick: pick, onview: () => { keep(); if (picked !== null) look(); }, onstep: keep });
  const one = detail({
    onclose: () => pick(null),
    ononly: ({ index }) => run({ ...job.request, indices: [index] }),
    onnear: ({ index, label }) => run({ ...job.request, indices: null, labels: label === null ? null : [label], near: { sample: index, weight: NEAR } }),
    onstep: (i) => { screen.at(i); keep(); },
    onedit: (id, k) => ctx.go("edit", { job: id, sample: k }),
    say: ctx.toast,
  });
  const last = strip({ onopen: reopen });
  const saving = h("button", { type: "button", disabled: true, onclick: savePicture }, "Save picture");
  const taking = h("button", { type: "button", hidden: true, onclick: () => use(job.request) }, "Use these settings");

  const size = (request) => request.indices?.length ?? request.n ?? offers()?.defaults.n ?? 16;

  /** Lay the stage out for what a request makes. labels: of its samples, where they are known. */
  function lay(request, labels = null) {
    const { shape, classes } = card(request.run);
    const n = size(request);
    const chosen = request.labels ?? (classes ? classes.map((_, i) => i) : null);
    const own = labels ?? (chosen ? Array.from({ length: n }, (_, k) => chosen[(request.indices?.[k] ?? k) % chosen.length]) : null);
    const named = own && classes ? own.map((label) => classes[label] ?? String(label)) : null;
    const names = Array.from({ length: n }, (_, k) => `sample ${request.indices?.[k] ?? k}${named ? `, ${named[k]}` : ""}`);
    screen.lay({ n, shape, names, captions: named && n <= 32 ? named : null, classes: chosen?.length ?? 1 });
    saving.hidden = shape.length !== 3;
  }

  function title(request, times) {
    const sampler = request.sampler ?? offers()?.defaults.sampler;
    return `${sampler} · ${count(times.length - 1, "step")} · seed ${request.seed ?? 0}`;
  }

  /** Show a job from its beginning. */
  function begin(next) {
    job = next;
    grids.set(job.id, job.times);
    pick(null);
    lay(job.request);
    screen.begin(job.id, job.times);
    screen.title(title(job.request, job.times));
    saving.disabled = true;
    taking.hidden = true;
  }

  /** Show an earlier job; the controls keep what they have. */
  async function reopen(earlier) {
    if (busy()) return;
    const times = await timesOf(earlier.id, earlier.request);
    begin({ id: earlier.id, request: earlier.request, times, ready: times.length - 1, done: true, calls: earlier.calls, ms: earlier.ms });
    screen.step(job.ready, true);
    saving.disabled = false;
    taking.hidden = same(state(), job.request, offers().defaults);
    list();
  }

  async function timesOf(id, request) {
    if (!grids.has(id)) grids.set(id, (await post("/api/plan", request)).times);
    return grids.get(id);
  }

  function list() {
    return last.refresh(job?.id, async ({ id, request }) => ({
      text: `${request.sampler ?? offers().defaults.sampler} · ${request.seed}`,
      steps: (await timesOf(id, request)).length - 1,
      shape: card(request.run)?.shape ?? [],
    }));
  }

  function pick(k) {
    if (k === null || k === picked) {
      if (picked !== null) one.close();
      picked = null;
      screen.pick(null);
      return keep();
    }
    if (!job?.ready) return;
    picked = k;
    screen.pick(k);
    look();
    keep();
  }

  function look() {
    const { shape, name } = card(job.request.run);
    one.open({ id: job.id, times: job.times, ready: job.ready, shape, name, near: Boolean(job.request.near) }, picked, screen.view);
  }

  async function savePicture() {
    try {
      const { name } = card(job.request.run);
      save(await blob(`/api/jobs/${job.id}/picture.png`), `${name}-seed-${job.request.seed ?? 0}.png`);
    } catch (error) {
      ctx.toast(error.message);
    }
  }

  return {
    stage: screen,
    detail: one.element,
    strip: last.element,
    saving,
    taking,
    get empty() {
      return job === null;
    },
    /** Steps of the job that are there. */
    get ready() {
      return job?.ready ?? 0;
    },
    /** Make room for what the controls would make, before the first job. */
    preview(plan) {
      const wanted = state();
      const { name } = card(wanted.run);
      lay(wanted);
      screen.title(name);
      screen.empty(plan.refused ? "" : `Press Run, or Ctrl+Enter, to see ${size(wanted)} samples of ${name} take shape.`);
      screen.scrub.times(plan.times ?? []);
    },
    /** A new job, as POST /api/jobs answers it. */
    begin({ id, times }, request) {
      begin({ id, request, times, ready: 0 });
      if (innerWidth < 760) screen.element.scrollIntoView({ block: "start" });
    },
    /** A step of the job has come; the number of all. */
    step({ i }) {
      job.ready = i;
      screen.step(i, i === job.times.length - 1);
      return job.times.length - 1;
    },
    /** The job has ended; what screen readers say. */
    async done({ ms, calls, labels }) {
      Object.assign(job, { ms, calls, done: true });
      saving.disabled = false;
      await screen.settled();
      lay(job.request, labels);
      keep();
      await list();
      return `Done: ${count(size(job.request), "sample")}, seed ${job.request.seed ?? 0}.`;
    },
    /** After a reload: the last job that this state made, where the server still has it. */
    async comeBack(params) {
      const jobs = await list();
      const found = jobs.find(({ request }) => same(request, state(), offers().defaults));
      if (!found) return;
      await reopen(found);
      if (params.step) screen.at(Math.min(Number(params.step), job.ready));
      if (params.sample) pick(Math.min(Number(params.sample), size(job.request) - 1));
    },
    close: () => pick(null),
    /** What the address says of it. */
    params() {
      const at = job?.done && screen.scrub.value < job.ready ? screen.scrub.value : null;
      return { what: screen.view === "x0" ? null : screen.view, step: at, sample: picked };
    },
  };
}
