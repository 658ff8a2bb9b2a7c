// Training: the curves and previews of any number of runs, whoever started them; start, stop and resume.

import { blob, get, post } from "/assets/lib/api.js";
import { chart, cursor } from "/assets/lib/chart.js";
import { field, number, segments, select } from "/assets/lib/controls.js";
import { h, say } from "/assets/lib/dom.js";
import { bytes, seconds, short } from "/assets/lib/numbers.js";
import { scrubber } from "/assets/lib/scrub.js";

const EVERY = 2000; // ms between two looks at the files
const CURVES = [
  { column: "loss", label: "Loss", smooth: true, beside: "heldout_loss" },
  { column: "grad_norm", label: "Gradient norm", smooth: true },
  { column: "lr", label: "Learning rate", straight: true },
  { column: "examples_per_second", label: "Examples per second", smooth: true, straight: true },
  { column: "data_wait", label: "Share of time waiting for data", smooth: true, straight: true },
  { column: "memory_bytes", label: "Memory", straight: true, unit: bytes },
];

let ctx;
let view;
let timer = 0;
let front = false;
let runs = [];
let chosen = null; // ids of the runs whose curves are shown
let axes = "log";
const known = new Map(); // run -> { at, columns, marks, previews, left }

function mount(root, context) {
  ctx = context;
  const shared = cursor();
  view = {
    list: h("div", { class: "runs", role: "group", "aria-label": "Runs" }),
    empty: h("p", { class: "empty" }),
    starting: h("div", {}),
    charts: CURVES.map((curve) => ({ ...curve, chart: chart({ label: curve.label, shared, unit: curve.unit ?? short }) })),
    legend: h("p", { class: "legend soft" }),
    previews: previews(),
    form: ctx.server.can_write ? startForm() : null,
  };
  const scale = segments({ legend: "Axes", options: [{ value: "log", text: "log" }, { value: "linear", text: "linear" }], value: axes, onchange: (value) => { axes = value; keep(); draw(); } });
  view.scale = scale;
  root.append(
    h("div", { class: "side" }, h("div", { class: "groups" }, h("div", { class: "group" }, h("h2", {}, "Runs"), view.list, view.starting), view.form?.element ?? null)),
    h("div", { class: "work" }, h("div", { class: "bar" }, h("h1", {}, "Training"), scale.element), view.empty, view.legend, h("div", { class: "charts" }, ...view.charts.map((one) => one.chart.element)), view.previews.element),
  );
}

async function show(params) {
  front = true;
  if (params.runs !== undefined) chosen = params.runs.split(",").filter(Boolean).map(Number);
  if (params.recipe !== undefined) view.form?.open(params.recipe);
  if (params.axes === "linear" || params.axes === "log") view.scale.set((axes = params.axes));
  await look();
}

function hide() {
  front = false;
  clearTimeout(timer);
}

function keep() {
  ctx.keep({ runs: chosen?.join(","), axes: axes === "log" ? null : axes });
}

/** Look at the files again, and once more after a while. */
async function look() {
  clearTimeout(timer);
  if (!front) return;
  try {
    const said = await get("/api/training");
    runs = said.runs;
    if (chosen === null && runs.length) chosen = [(runs.find(({ state }) => state === "training") ?? runs[0]).id];
    lists(said.starting ?? []);
    await Promise.all((chosen ?? []).filter((id) => runs.some((run) => run.id === id)).map(tail));
    draw();
  } catch (error) {
    view.empty.hidden = false;
    say(view.empty, error.message);
  }
  if (front) timer = setTimeout(look, document.hidden ? 5 * EVERY : EVERY);
}

/** What a run's files have got since the last look. */
async function tail(id) {
  const had = known.get(id);
  const said = await get(`/api/training/${id}${had?.at === undefined ? "" : `?at=${encodeURIComponent(had.at)}`}`);
  const columns = had && !said.restarted ? had.columns : {};
  const before = columns.step?.length ?? 0;
  const more = said.columns.step?.length ?? 0;
  for (const name of new Set([...Object.keys(columns), ...Object.keys(said.columns)])) {
    columns[name] = [...(columns[name] ?? Array(before).fill(null)), ...(said.columns[name] ?? Array(more).fill(null))];
  }
  const marks = [...(had && !said.restarted ? had.marks : []), ...said.marks];
  known.set(id, { at: said.at, columns, marks, previews: said.previews, left: said.left, said: said.said, status: said.status });
}

function lists(starting) {
  const rows = runs.map((run) => {
    const old = [...view.list.children].find((row) => row.dataset.run === String(run.id));
    const row = old ?? entry(run);
    say(row.querySelector(".state"), stateOf(run));
    row.querySelector("input").checked = chosen?.includes(run.id) ?? false;
    for (const one of row.querySelectorAll("button")) one.hidden = one.dataset.when !== run.state || run.starting || run.step >= run.steps;
    const failure = row.querySelector(".failure");
    failure.hidden = !run.failed;
    say(failure, run.failed ?? "");
    return row;
  });
  if (rows.length !== view.list.children.length || rows.some((row, i) => row !== view.list.children[i])) view.list.replaceChildren(...rows);
  view.starting.replaceChildren(...starting.map(({ name, said, status }) => h("p", { class: status === null ? "soft" : "refusal" }, `${name}: ${said.at(-1) ?? "starting"}`)));
  view.empty.hidden = runs.length > 0;
  say(view.empty, runs.length ? "" : `There is no run yet. ${ctx.server.can_write ? "Choose a recipe on the left and start one" : "Train one with `scorefield train RECIPE`"}; its curves appear here, whoever started it.`);
}

function stateOf({ state, step, steps, left, starting }) {
  const done = `${(step ?? 0).toLocaleString("en")} of ${(steps ?? 0).toLocaleString("en")} steps`;
  if (starting) return `starting, ${done}`;
  if (state === "training" && left) return `step ${left.step.toLocaleString("en")} of ${(steps ?? 0).toLocaleString("en")}, ${left.seconds === null ? "" : `${seconds(left.seconds)} left`}`;
  return state === "done" ? `done, ${(step ?? 0).toLocaleString("en")} steps` : `${state}, ${done}`;
}

function entry(run) {
  const box = h("input", { type: "checkbox", onchange: () => {
    chosen = [...view.list.querySelectorAll("input:checked")].map((one) => Number(one.value));
    keep();
    look();
  }, value: run.id });
  const act = (what, when, text) => h("button", { type: "button", class: "link", "data-when": when, "aria-label": `${text} ${run.name}`, onclick: () => order(`/api/training/${run.id}/${what}`, {}, refusal) }, text);
  const refusal = h("p", { class: "refusal", hidden: true });
  return h("div", { class: "entry", "data-run": run.id }, h("label", {}, box, h("span", {}, run.name)), h("span", { class: "soft state" }), ...(ctx.server.can_write ? [act("stop", "training", "Stop"), act("resume", "stopped", "Resume")] : []), refusal, h("p", { class: "refusal failure", hidden: true }));
}

async function order(path, body, refusal) {
  refusal.hidden = true;
  try {
    const said = await post(path, body);
    ctx.toast(said.command ? `Started: ${said.command}` : "The training finishes its step, saves and ends.");
    await look();
    return true;
  } catch (error) {
    refusal.hidden = false;
    say(refusal, error.message);
    return false;
  }
}

function draw() {
  const shown = runs.filter(({ id }) => chosen?.includes(id) && known.has(id));
  view.legend.replaceChildren(...(shown.length > 1 ? shown.map(({ name }, i) => h("span", { class: `key line-${(i % 4) + 1}` }, name)) : []));
  for (const { column, beside, smooth, straight, chart: one } of view.charts) {
    const series = shown.flatMap(({ id, name }) => {
      const { columns } = known.get(id);
      const own = [{ name: shown.length > 1 ? name : column.replaceAll("_", " "), x: columns.step ?? [], y: columns[column] ?? [], smooth }];
      return beside && shown.length === 1 && columns[beside]?.some((value) => value !== null) ? [...own, { name: "held-out", x: columns.step, y: columns[beside] }] : own;
    });
    const marks = shown.flatMap(({ id }) => known.get(id).marks.map(({ step, kind, count }) => ({ x: step, text: `${kind}${count ? ` ${count}` : ""} at step ${step}` })));
    one.draw({ series, marks, logX: axes === "log", logY: axes === "log" && !straight });
  }
  const first = shown.find(({ id }) => known.get(id).previews?.length);
  view.previews.show(first, first ? known.get(first.id).previews : []);
}

/** Previews of a run under one slider, and a wipe between two of its steps. */
function previews() {
  let steps = [];
  const front = h("img", { alt: "", onload: () => { wipe.style.width = `${front.clientWidth}px`; } }); // the slider is as wide as the picture
  const back = h("img", { alt: "" });
  const box = h("div", { class: "wipe" }, back, front);
  const text = (i) => (steps.length ? `training step ${steps[i].toLocaleString("en")}` : "");
  const newer = scrubber({ label: "Preview", text, onstep: (i) => load(front, i) });
  const older = scrubber({ label: "Compare with", text, onstep: (i) => load(back, i) });
  const wipe = h("input", { type: "range", min: 0, max: 100, value: 100, "aria-label": "Wipe between the two", oninput: () => edge() });
  const both = h("details", { ontoggle: () => { wipe.value = both.open ? 50 : 100; edge(); } }, h("summary", {}, "Compare two steps"), h("label", { class: "soft" }, "Wipe ", wipe), older.element);
  const element = h("section", { class: "previews", hidden: true }, h("h2", {}, "Previews"), box, newer.element, both);
  let run = null;
  const urls = new Map();

  function edge() {
    front.style.clipPath = `inset(0 ${100 - wipe.value}% 0 0)`;
  }

  async function load(image, i) {
    const key = `${run.id}/${steps[i]}`;
    image.dataset.wanted = key;
    if (!urls.has(key)) urls.set(key, URL.createObjectURL(await blob(`/api/training/${run.id}/preview/${steps[i]}`)));
    if (image.dataset.wanted !== key) return;
    image.src = urls.get(key);
    image.alt = `Samples at training step ${steps[i]}`;
  }

  return {
    element,
    show(next, list) {
      element.hidden = !next || !list.length;
      if (element.hidden) return;
      const same = run?.id === next.id && list.length === steps.length;
      const follow = run?.id !== next.id || newer.value === steps.length - 1;
      run = next;
      steps = list;
      if (same) return;
      for (const one of [newer, older]) {
        one.times(list);
        one.ready(list.length - 1);
      }
      if (follow) {
        newer.show(list.length - 1);
        load(front, list.length - 1);
        load(back, older.value);
      }
    },
  };
}

/** Start a training: its plan first, then the run. */
function startForm() {
  const { recipes, data, demo } = ctx.server;
  const wish = { recipe: demo?.recipe ?? recipes[0]?.name, data: null, settings: [], steps: null, minutes: null };
  const about = (name) => recipes.find((one) => one.name === name)?.summary ?? "";
  const recipe = field({ label: "Recipe", hint: about(wish.recipe) || "A recipe of the library", control: select(recipes.map(({ name }) => ({ value: name, text: name })), wish.recipe, (name) => { wish.recipe = name; recipe.about(about(name)); changed(); }) });
  const source = field({ label: "Data", control: select([{ value: "", text: "the recipe's own" }, ...data.map(({ id, name }) => ({ value: String(id), text: name }))], "", (id) => { wish.data = id === "" ? null : Number(id); changed(); }) });
  const steps = field({ label: "Training steps", control: number({ placeholder: "recipe's", min: 1, step: 1 }, (value) => { wish.steps = value; changed(); }) });
  const minutes = field({ label: "Minutes", control: number({ placeholder: "no limit", min: 0 }, (value) => { wish.minutes = value; changed(); }) });
  const lines = h("textarea", { rows: 2, placeholder: "training.lr=1e-3", oninput: () => { wish.settings = lines.value.split("\n").map((line) => line.trim()).filter(Boolean); changed(); } });
  const settings = field({ label: "Settings, one a line", control: lines });
  const plan = h("div", { class: "plan" });
  const refusal = h("p", { class: "refusal", hidden: true });
  const ask = h("button", { type: "button", onclick: measure }, "Plan");
  const go = h("button", { type: "submit", class: "run", disabled: true }, "Start");
  let turn = 0;

  function changed() {
    turn++;
    go.disabled = true;
    refusal.hidden = true;
    plan.replaceChildren();
  }

  async function measure() {
    const mine = ++turn;
    plan.replaceChildren(h("p", { class: "soft" }, "Measuring some steps…"));
    let said;
    try {
      said = await post("/api/training/plan", wish);
    } catch (error) {
      said = { refused: error.message };
    }
    if (mine !== turn) return;
    refusal.hidden = !said.refused;
    say(refusal, said.refused ?? "");
    go.disabled = Boolean(said.refused);
    plan.replaceChildren(...(said.refused ? [] : [h("p", {}, `${bytes(said.memory)} of memory${said.seconds === null ? "" : `, about ${seconds(said.seconds)}`}`), h("details", {}, h("summary", {}, "All figures"), h("dl", { class: "facts" }, ...said.rows.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]))), h("code", { class: "command", tabindex: 0 }, said.command)]));
  }

  const element = h(
    "details",
    { class: "more" },
    h("summary", {}, "Start a training"),
    h("form", { class: "group", "aria-label": "Start a training", onsubmit: async (event) => { event.preventDefault(); if (await order("/api/training", wish, refusal)) changed(); } },
      recipe.element, source.element, h("div", { class: "two" }, steps.element, minutes.element), settings.element, h("div", { class: "actions" }, ask, go), plan, refusal),
  );
  /** Show the form with a recipe chosen, as from a link of another panel. */
  function open(name) {
    element.open = true;
    if (recipes.some((one) => one.name === name)) {
      recipe.element.querySelector("select").value = wish.recipe = name;
      recipe.about(about(name));
    }
    changed();
    ask.focus();
  }
  return { element, open };
}

export default { id: "training", title: "Training", mount, show, hide };
