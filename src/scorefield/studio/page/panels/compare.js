// Compare: the same seeds under settings along two axes, with what each cell costs and how far it is from a reference.

import { blob, get, pageName, post, save } from "/assets/lib/api.js";
import { debounced, h, say } from "/assets/lib/dom.js";
import { address, frame } from "/assets/lib/frames.js";
import { launcher } from "/assets/lib/job.js";
import { count, seconds } from "/assets/lib/numbers.js";
import * as axes from "/assets/panels/compare/axes.js";
import { closer } from "/assets/panels/compare/closer.js";
import { distances } from "/assets/panels/compare/distances.js";
import { table, took } from "/assets/panels/compare/table.js";
import { form } from "/assets/panels/sample/form.js";
import { empty, fromParams, fromRequest, toParams, toRequest } from "/assets/panels/sample/request.js";

const LARGEST = 16; // samples of a cell
const REFERENCE = "reference";

let ctx;
let state = { ...empty(), n: 4 }; // what all cells have in common
let wish = null; // { rows, columns, reference }
let offers = null;
let plan = null;
let job = null; // { id, plan, request, found: [events of cells], frames, done } of the table that is shown
let picked = null; // { a, b }: the cell that is shown large, and the one beside it or REFERENCE
let view;
let asked = 0;
let adopted = 0;

const card = (id) => ctx.server.runs.find((run) => run.id === id);

function mount(root, context) {
  ctx = context;
  view = {
    launch: launcher({ onrun: run, onstopped: () => ctx.toast(`Stopped after ${count(job?.found.length ?? 0, "cell")}.`) }),
    title: h("h1", {}, "Compare"),
    hint: h("p", { class: "empty" }),
    axes: axes.axesForm({ onchange: () => { keep(); later(); } }),
    table: table({ onpick: (i) => pick(i) }),
    closer: closer({ onclose: () => pick(null), onother: (b) => pick(picked.a, b), oncopy: copy }),
    distances: distances(),
    png: h("button", { type: "button", disabled: true, onclick: () => download("png") }, "Save picture"),
    csv: h("button", { type: "button", disabled: true, onclick: () => download("csv") }, "Save table (CSV)"),
  };
  view.form = form({ cannot: "of the runs here cannot be compared", onchange: change, locked: () => true, onlock: null, first: view.axes.element });
  root.append(
    h("form", { class: "side", "aria-label": "What to compare", onsubmit: (event) => { event.preventDefault(); run(); } }, view.form.element, view.launch.element),
    h("div", { class: "work" },
      h("div", { class: "bar" }, view.title),
      view.hint,
      view.table.element,
      h("div", { class: "actions" }, view.png, view.csv, h("button", { type: "button", onclick: () => copy(commands()) }, "Copy as commands")),
      view.closer.element,
      view.distances.element),
  );
}

async function show(params) {
  const wanted = fromParams(params);
  const runs = await ctx.runs(state.run === null);
  const possible = runs.filter(({ can, problem }) => !problem && !can.sample);
  if (!possible.length) {
    view.form.show({ ...state, run: null }, runs, null);
    say(view.title, "No run to compare yet");
    return say(view.hint, runs.length ? "None of the runs here can be sampled; the list on the left says why." : `There is no run in ${ctx.server.root}/. Train one with \`scorefield train\`, and load this page again.`);
  }
  if (!possible.some(({ id }) => id === wanted.run)) wanted.run = state.run ?? possible[0].id;
  const first = offers === null;
  if (!first && params.rows === undefined) return;
  wanted.n = Math.min(wanted.n ?? state.n, LARGEST);
  await adopt(wanted, axes.fromParams(params) ?? wish, first);
}

function hide() {}

/** Take a state and its axes, and ask what the run offers. */
async function adopt(next, nextWish, back = false) {
  const mine = ++adopted;
  const other = next.run !== state.run || offers === null;
  state = { ...fromRequest(next), indices: null, near: null };
  if (other) {
    let found;
    try {
      found = await get(`/api/runs/${state.run}/sampling`);
    } catch (error) {
      if (mine !== adopted) return;
      offers = null;
      view.form.show(state, ctx.server.runs, null);
      view.form.say("run", error.message);
      return;
    }
    if (mine !== adopted) return;
    offers = { ...found, largest: { ...found.largest, n: LARGEST } };
  }
  wish = nextWish ?? axes.suggested(ctx.server.runs, offers);
  view.axes.show(wish, ctx.server.runs, offers);
  view.form.show(state, ctx.server.runs, offers);
  keep();
  await ask();
  if (back) await comeBack();
}

function change(_, { redraw, ...kept }) {
  if (kept.run !== undefined && kept.run !== state.run) return adopt({ ...empty(), run: kept.run, n: state.n, seed: state.seed }, null);
  Object.assign(state, kept);
  keep();
  later();
}

const later = debounced(() => ask(), 200);

/** The CompareRequest of what is chosen. */
function request() {
  const { rows, columns, reference } = wish;
  return { base: toRequest(state), rows: { ...rows }, columns: columns.name ? { ...columns } : null, reference };
}

function wrong() {
  const { rows, columns } = wish;
  if (rows.name === columns.name) return "Rows and columns have the same setting: choose another one for the columns.";
  for (const [title, { name, values }] of [["rows", rows], ["columns", columns]]) if (name && !values.length) return `Choose at least one value for the ${title}.`;
  return null;
}

/** What the cells cost, and whether they go. */
async function ask() {
  const mine = ++asked;
  const now = request();
  let said = { refused: wrong() };
  if (!said.refused) {
    try {
      said = await post("/api/compare/plan", now);
    } catch (error) {
      said = { refused: error.message };
    }
  }
  if (mine !== asked) return;
  plan = said;
  view.launch.refuse(said.refused);
  face();
  if (job) return;
  say(view.title, card(state.run).name);
  if (said.refused) return;
  lay(said, now);
  say(view.hint, `Press Run to fill the ${count(said.cells.length, "cell")}. All of them start from the same noise.`);
}

function face() {
  const text = plan.refused ? "" : `${count(plan.calls, "network call")} in ${count(plan.cells.length, "cell")}${plan.seconds === null ? "" : `, about ${seconds(plan.seconds)}`}`;
  view.launch.offer(!plan.refused, text);
}

function shapeOf(asked, { row, column }) {
  const { base, rows, columns } = asked;
  const id = rows.name === "run" ? rows.values[row] : columns?.name === "run" ? columns.values[column] : base.run;
  return card(id).shape;
}

function lay(of, asked) {
  view.table.lay({ plan: of, n: asked.base.n ?? offers.defaults.n, shapes: of.cells.map((cell) => shapeOf(asked, cell)) });
}

async function run() {
  if (view.launch.busy || !plan || plan.refused) return;
  const now = request();
  let on = null;
  const each = (name) => (event) => on[name](event);
  await view.launch.start({ kind: "compare", request: now }, {
    made(made) {
      if (innerWidth < 760) view.title.parentElement.scrollIntoView({ block: "start" });
      on = tableOf(made.id, made, now);
    },
    progress: each("progress"),
    cell: each("cell"),
    done: each("done"),
  });
}

/** Show the table of a job, and what fills it as its cells come. */
function tableOf(id, made, now) {
  job = { id, plan: made, request: now, found: [], done: false };
  const mine = job;
  const frames = [];
  pick(null);
  lay(made, now);
  say(view.title, `${made.rows.length} × ${made.columns.length} cells, seed ${now.base.seed ?? 0}`);
  view.hint.hidden = true;
  view.png.hidden = shapeOf(now, made.cells[0]).length !== 3;
  view.png.disabled = view.csv.disabled = true;
  view.distances.draw(mine);
  return {
    progress(event) {
      if (event.row !== null) view.table.progress(event, `step ${event.i} of ${event.steps}`);
      view.launch.progress(event.row === null ? `reference: step ${event.i} of ${event.steps}` : `cell ${mine.found.length + 1} of ${made.cells.length}`);
    },
    cell(event) {
      mine.found.push(event);
      frames.push(filled(mine, event));
    },
    async done() {
      await Promise.all(frames);
      mine.done = true;
      view.png.disabled = view.csv.disabled = false;
      view.distances.draw(mine);
      view.launch.ended(`Done: ${count(mine.found.length, "cell")}.`);
    },
  };
}

async function filled(mine, event) {
  const samples = event.refused ? null : await frame(address(mine.id, event.i, "x"));
  if (job === mine) view.table.fill(event, samples);
}

/** After a reload: the table of this state, where the server still has it. */
async function comeBack() {
  const now = JSON.stringify(request());
  const jobs = await get(`/api/jobs?page=${pageName()}`);
  const found = jobs.find(({ kind, state: how, request: of }) => kind === "compare" && how === "done" && JSON.stringify(of) === now);
  if (!found || view.launch.busy || !plan || plan.refused) return;
  const on = tableOf(found.id, plan, request());
  const mine = job;
  const done = await view.launch.follow(found.id, on, () => job === mine);
  if (done) view.launch.took(done);
}

// Two cells, large

/** Show cell a beside b: another cell, or the reference of a. */
async function pick(a, b) {
  if (a === null || (picked?.a === a && b === undefined)) {
    picked = null;
    view.table.pick(null);
    return view.closer.close();
  }
  const mine = job;
  const own = mine.found.find(({ i }) => i === a);
  const name = (event) => [mine.plan.rows[event.row], mine.plan.columns[event.column]].filter(Boolean).join(", ");
  const shape = shapeOf(mine.request, own);
  const alike = mine.found.filter((event) => event.i !== a && !event.refused && String(shapeOf(mine.request, event)) === String(shape));
  const many = own.reference_frame === null ? [] : [{ value: REFERENCE, text: `reference: DDIM, ${count(mine.request.reference, "step")}` }];
  const others = [...many, ...alike.map((event) => ({ value: String(event.i), text: name(event) }))];
  const other = [b, picked?.b, others[0]?.value].find((value) => others.some((one) => one.value === value)) ?? null;
  picked = { a, b: other };
  view.table.pick(a);
  const facts = ({ calls, ms }) => `${count(calls, "call")} · ${took(ms)}`;
  const beside = mine.found.find(({ i }) => String(i) === other);
  const [left, right] = await Promise.all([a, other === REFERENCE ? own.reference_frame : beside?.i].map((i) => (i === undefined ? null : frame(address(mine.id, i, "x")))));
  if (job !== mine || picked?.a !== a || picked.b !== other) return;
  view.closer.open({
    a: { name: name(own), facts: facts(own), frame: left },
    b: right && { name: beside ? name(beside) : many[0].text, facts: beside ? facts(beside) : "from the same noise", frame: right },
    n: left.n,
    shape,
    others,
    other,
    command: mine.plan.cells[a].command,
  });
  if (b === undefined) view.closer.element.scrollIntoView({ block: "nearest" });
}

// Out

async function download(kind) {
  try {
    save(await blob(`/api/jobs/${job.id}/compare.${kind}`), `comparison-seed-${job.request.base.seed ?? 0}.${kind}`);
  } catch (error) {
    ctx.toast(error.message);
  }
}

/** The commands of the cells, a line each. */
const commands = () => (job?.plan ?? plan)?.cells?.filter(({ refused }) => !refused).map(({ command }) => command).join("\n");

async function copy(text) {
  if (!text) return ctx.toast("There is nothing to copy: what is chosen does not go together.");
  await navigator.clipboard.writeText(text);
  ctx.toast(text.includes("\n") ? "The commands are copied, a line for each cell." : "The command is copied. It writes the same bytes.");
}

/** Write the state into the address. */
function keep() {
  if (state.run !== null && wish) ctx.keep({ ...toParams(state), ...axes.toParams(wish) });
}

export default { id: "compare", title: "Compare", mount, show, hide };
