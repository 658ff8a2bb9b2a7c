// Sample: choose how, see the cost, run, and look at every step of every image.

import { get, post, send } from "/assets/lib/api.js";
import { debounced, dropTarget, h, say } from "/assets/lib/dom.js";
import { cost, launcher } from "/assets/lib/job.js";
import { count } from "/assets/lib/numbers.js";
import { form } from "/assets/panels/sample/form.js";
import { empty, fromParams, fromRequest, newSeed, toParams, toRequest } from "/assets/panels/sample/request.js";
import { shown } from "/assets/panels/sample/shown.js";

let ctx;
let state = empty();
let offers = null; // what the run's samplers declare
let plan = null; // what the server says of the state
let locked = true;
let changed = null; // the control that was changed last, beside which a refusal stands
let view; // { form, launch, shown, command }
let asked = 0;
let adopted = 0;
let front = false;

const card = (id) => ctx.server.runs.find((run) => run.id === id);

function mount(root, context) {
  ctx = context;
  const open = h("input", { type: "file", accept: "image/png", class: "unseen", onchange: () => { restore(open.files[0]); open.value = ""; } });
  view = {
    seed: h("input", { type: "checkbox", checked: true }),
    command: h("code", { class: "command", tabindex: 0, "aria-label": "The command" }),
    form: form({ onchange: change, locked: () => locked, onlock: (on) => { locked = on; } }),
    launch: launcher({ onrun: run, onstopped: () => ctx.toast(`Stopped after ${count(view.shown.ready, "step")}.`) }),
    shown: shown({ ctx, offers: () => offers, state: () => state, busy: () => view.launch.busy, keep, use, run: again }),
  };
  root.append(
    h("form", { class: "side", "aria-label": "How to sample", onsubmit: (event) => { event.preventDefault(); run(); } }, view.form.element, view.launch.element),
    h(
      "div",
      { class: "work" },
      view.shown.stage.element,
      h("div", { class: "actions" },
        view.shown.saving,
        h("label", { class: "as-button" }, open, h("span", {}, "Open a saved picture")),
        h("label", { class: "chip", title: "Whether the seed comes back with the settings of a saved picture or an earlier run" }, view.seed, h("span", {}, "with its seed")),
        h("button", { type: "button", onclick: () => copy("command") }, "Copy as command"),
        h("button", { type: "button", onclick: () => copy("python") }, "Copy as Python"),
        view.shown.taking),
      view.command,
      view.shown.detail,
      view.shown.strip,
    ),
  );
  dropTarget(root, restore);
  addEventListener("keydown", (event) => {
    if (!front) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    if (event.key === "Escape" && view.launch.busy) view.launch.stop();
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
  const { stage } = view.shown;
  stage.setView(["x0", "x", "both"].includes(params.what) ? params.what : stage.view);
  const first = offers === null;
  if (first) {
    stage.title(card(wanted.run).name);
    stage.empty("Opening the run…");
  }
  await adopt(wanted, false);
  if (first) await view.shown.comeBack(params);
}

function hide() {
  front = false;
}

/** What to do where no run can be sampled. */
function nothing(runs) {
  view.form.show({ ...state, run: null }, runs, null);
  view.launch.offer(false, "");
  const demo = ctx.server.demo;
  view.shown.stage.title("No run to sample yet");
  view.shown.stage.empty(
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
  view.launch.refuse(beside ? null : said.refused);
  say(view.command, said.command ?? "");
  view.launch.offer(!said.refused, said.refused ? "" : cost(said));
  if (!view.launch.busy && view.shown.empty) view.shown.preview(said);
  if (said.refused) return;
  view.form.implied(said);
  view.launch.caution(said.caution);
}

async function run() {
  if (view.launch.busy || !plan || plan.refused) return;
  if (!locked) {
    state.seed = newSeed();
    draw();
    keep();
  }
  const request = toRequest(state);
  await view.launch.start({ kind: "sample", request }, {
    made: (made) => view.shown.begin(made, request),
    step: view.shown.step,
    done: async (event) => view.launch.ended(await view.shown.done(event)),
  });
}

/** Take the settings of an earlier job or a saved picture; its seed where the user wants it. */
async function use(request) {
  const kept = view.seed.checked ? {} : { seed: state.seed };
  await adopt({ ...request, ...kept });
}

/** Take other settings, and run. */
function again(request) {
  state = fromRequest(request);
  changed = request.near ? "near" : "indices";
  draw();
  keep();
  ask().then(run);
}

async function restore(file) {
  if (!file) return;
  try {
    const { request, note } = await send("/api/settings", file);
    await use(request);
    ctx.toast(`The settings of ${file.name} are back, ${view.seed.checked ? `with its seed ${request.seed ?? 0}` : "but for its seed"}.${note ? ` Note: ${note}.` : ""}`);
  } catch (error) {
    view.launch.refuse(`${file.name}: ${error.message}`);
  }
}

async function copy(what) {
  if (!plan || plan.refused) return ctx.toast("There is nothing to copy: what is chosen does not go together.");
  if (!plan[what]) return ctx.toast("No command draws neighbours of a latent: copy as Python.");
  await navigator.clipboard.writeText(plan[what]);
  ctx.toast(what === "command" ? "The command is copied. It writes the same bytes." : "The lines of Python are copied. They make the same bytes.");
}

/** Write the state into the address. */
function keep() {
  if (state.run !== null) ctx.keep({ ...toParams(state), ...view.shown.params() });
}

export default { id: "sample", title: "Sample", mount, show, hide };
