// Field: scores, densities, samples and paths in the plane. Squares side by side share their points and their noise.

import { get, numbers, pixels, post } from "/assets/lib/api.js";
import { segments } from "/assets/lib/controls.js";
import { debounced, h, reducedMotion, say } from "/assets/lib/dom.js";
import { count, seconds } from "/assets/lib/numbers.js";
import { scrubber } from "/assets/lib/scrub.js";
import { clock } from "/assets/panels/field/clock.js";
import { ahead, fields, scaleOf } from "/assets/panels/field/fields.js";
import { form, modelName } from "/assets/panels/field/form.js";
import { runner } from "/assets/panels/field/jobs.js";
import { plane } from "/assets/panels/field/plane.js";
import { caption, legend, particle, whyEmpty } from "/assets/panels/field/scene.js";
import { fromParams, fromPreset, hasLevels, isLearned, toParams } from "/assets/panels/field/state.js";
import { figures, pair, pointTable } from "/assets/panels/field/tables.js";

const LAYERS = { density: "ln p", arrows: "score", data: "data", samples: "samples", paths: "paths" };
const PASSES = { normal: 4000, slow: 16000 }; // ms that playing takes
const DRAWN = 500;

let ctx;
let offers = null;
let state = null;
let source = null; // what the server says of the points
let data = null; // Float32Array of some of them
let view;
let lattices;
let fetchSoon;
let hands = null; // the clock
let walks = null; // [{ count, n, values, times, steps }]
let facts = null; // what is known of their last states, a square each
let expected = null; // the same of exact draws
let training = null; // { id, source, trains, version, differences, done } of the model that is learned
let differences = []; // of each square at the level that is shown
let jobs; // the training or the walk under way
let drops = []; // { x, y, paths: [{ times, points }], from }
let probe = null; // { x, y, found: [ … ] }
let speed = "normal";
let tool = "look";
let front = false;
const layers = new Set(Object.keys(LAYERS));

const where = () => ({ source: state.source, training: training?.id ?? null, version: training?.version ?? 0 });
const usable = () => state.source.kind !== "drawn" || state.source.points.length > 0;
const learnedHere = () => Boolean(training && training.version && training.source === JSON.stringify(state.source) && training.trains === state.trains);
const ready = (pane) => usable() && (!isLearned(pane) || learnedHere()) && (source?.exact || !pane.model.startsWith("exact"));

function mount(root, context) {
  ctx = context;
  const button = h("button", { type: "button", class: "run", disabled: true, onclick: () => (jobs.kind ? jobs.stop() : run()) }, "Run");
  const cost = h("span", { class: "cost", role: "status" });
  const refusal = h("p", { class: "refusal", hidden: true });
  const side = h("form", { class: "side", "aria-label": "What to show", onsubmit: (event) => { event.preventDefault(); if (state && !jobs.kind) run(); } });
  const picture = plane({ label: "The plane. Arrow keys move a cross, Enter acts at it.", onact: act, onmove: (x, y) => say(view.here, pair([x, y])) });
  const scrub = scrubber({ label: "Time", onstep: moved, text: (i) => hands?.text(Math.min(i, hands.last)) ?? "", pass: () => PASSES[speed] });
  const tools = segments({ legend: "What a click does", options: [{ value: "look", text: "Look" }, { value: "drop", text: "Drop a particle" }, { value: "draw", text: "Draw points" }], value: tool, onchange: choose });
  const pace = segments({ legend: "Speed", options: [{ value: "normal", text: "Normal" }, { value: "slow", text: "Slow" }], value: speed, onchange: (value) => { speed = value; } });
  const boxes = h("fieldset", { class: "chips layers" }, h("legend", { class: "unseen" }, "Layers"), ...Object.entries(LAYERS).map(([name, text]) =>
    h("label", { class: "chip" }, h("input", { type: "checkbox", checked: true, onchange: (event) => { layers[event.target.checked ? "add" : "delete"](name); draw(); } }), h("span", {}, text))));
  const back = h("button", { type: "button", onclick: () => step(-1) }, "One step back");
  const on = h("button", { type: "button", onclick: () => step(1) }, "One step");
  view = {
    button, cost, refusal, side, picture, scrub, tools,
    here: h("span", { class: "soft here", "aria-live": "polite" }),
    legend: h("p", { class: "soft" }),
    figures: h("div", { class: "figures-box" }),
    point: h("div", { class: "figures-box" }),
    clear: h("button", { type: "button", hidden: true, onclick: () => { drops = []; draw(); } }, "Take the particles away"),
    demo: h("p", { class: "demo", hidden: true }),
  };
  root.append(
    side,
    h("div", { class: "work" },
      view.demo,
      h("div", { class: "bar" }, tools.element, view.here, boxes),
      picture.element,
      scrub.element,
      h("div", { class: "actions" }, back, on, pace.element, view.clear),
      view.point,
      view.figures,
      view.legend),
  );
  side.append(h("div", { class: "groups" }), h("div", { class: "launch" }, button, cost, refusal));
  addEventListener("keydown", (event) => {
    if (!front || !state) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    if (event.key === "Escape") jobs.stop();
  });
  lattices = fields(() => draw());
  jobs = runner({ onchange: face, onwait: (text) => say(view.cost, text), onrefused: refuse });
  fetchSoon = ahead(lattices, wanted, refuse);
}

async function show(params) {
  front = true;
  if (!offers) {
    offers = await get("/api/field");
    for (const one of offers.methods) one.title = one.name.replace("-vr", "");
    view.form = form(offers, { example, change, pane: changePane, undo: () => redraw(state.source.points.slice(0, -1)), clear: () => redraw([]), train });
    view.side.firstChild.replaceWith(view.form.element);
    offerDemo();
  }
  const next = fromParams(params, offers);
  if (state && JSON.stringify(toParams(next, offers)) === JSON.stringify(toParams(state, offers))) return draw();
  await adopt(next, params.t);
}

function hide() {
  front = false;
  view.scrub.stop();
}

/** Where nothing is trained, a way to the panel that trains. */
function offerDemo() {
  const { runs, demo, can_write } = ctx.server;
  if (runs.length || !ctx.panels.includes("training") || !can_write) return;
  view.demo.hidden = false;
  view.demo.replaceChildren("No run is here yet. ", h("button", { type: "button", class: "link", onclick: () => ctx.go("training", { recipe: demo.recipe }) }, `Train the demo, ${demo.recipe}`), `: ${demo.minutes_text}.`);
}

/** Take a state and show its fields. */
async function adopt(next, at = null) {
  jobs.stop();
  const other = !state || JSON.stringify(next.source) !== JSON.stringify(state.source);
  state = next;
  forget();
  if (other) await readSource();
  const preset = offers.presets.find(({ id }) => id === state.show);
  setClock();
  place(at !== null && at !== undefined ? hands.last - Number(at) : hands.last - (preset?.t ?? 0));
  choose(state.source.kind === "drawn" ? "draw" : tool === "draw" ? "look" : tool);
  refresh();
}

/** Walks, particles and the point that is looked at are of earlier settings. */
function forget() {
  walks = facts = expected = probe = null;
  drops = [];
  view.point.replaceChildren();
  refuse(null);
  differences = state.panes.map(() => null);
}

async function readSource() {
  source = data = null;
  if (!usable()) {
    source = { exact: true, reach: 3, components: 0 };
    return;
  }
  const asked = state.source;
  try {
    const [said, points] = await Promise.all([post("/api/field/source", asked), numbers("/api/field/points", asked)]);
    if (asked !== state.source) return;
    source = said;
    data = points.data;
    view.form.say("source", null);
  } catch (error) {
    view.form.say("source", error.message);
    source = { exact: true, reach: 3, components: 0 };
  }
}

/** Show the state: controls, address, fields, figures. */
function refresh() {
  view.button.disabled = false;
  view.form.show(state, source);
  sayTraining();
  ctx.keep(toParams(state, offers));
  face();
  draw();
  table();
  measure();
}

function example(id) {
  const preset = offers.presets.find((one) => one.id === id);
  if (!preset) {
    state.show = null;
    return refresh();
  }
  adopt(fromPreset(preset, state.seed)).then(() => {
    view.form.focus("example");
    if (!preset.trains) run();
  });
}

async function change(changes, name) {
  const points = changes.source !== undefined;
  state = { ...state, ...changes, show: name === "seed" ? state.show : null };
  if (points && state.trains === "objectives") Object.assign(state, { trains: "levels", panes: [{ ...offers.defaults.pane }, { ...offers.defaults.pane, model: "learned" }] });
  if (points) return reopen(name);
  forget();
  setClock();
  ctx.keep(toParams(state, offers));
  face();
  draw();
  table();
}

/** Show other points. */
async function reopen(name) {
  jobs.stop();
  forget();
  await readSource();
  if (source && !source.exact) state.panes = ["ddim", "dpm-solver"].map((sampler) => ({ ...offers.defaults.pane, model: "learned", sampler, steps: 10 }));
  setClock();
  place(hands.last);
  choose(state.source.kind === "drawn" ? "draw" : "look");
  refresh();
  if (name) view.form.focus(name);
}

function changePane(k, changes, name) {
  const shown = ["model", "sampler", "grid"].some((part) => part in changes);
  state = { ...state, show: null, panes: state.panes.map((pane, i) => (i === k ? { ...pane, ...changes } : pane)) };
  forget();
  setClock();
  if (shown) {
    refresh();
    view.form.focus(name);
  } else {
    ctx.keep(toParams(state, offers));
    face();
    draw();
    table();
  }
}

// Points drawn by hand

const settled = debounced(async () => {
  await readSource();
  refresh();
}, 250);

function redraw(points) {
  jobs.stop();
  state = { ...state, show: null, source: { kind: "drawn", points } };
  forget();
  setClock();
  view.form.points(points.length);
  draw();
  settled();
}

// The clock

function setClock() {
  const before = hands ? hands.list[Math.min(view.scrub.value, hands.last)] : null;
  const was = hands;
  hands = clock(offers.levels, walks, state.panes.map(hasLevels));
  view.scrub.times(hands.list);
  view.scrub.ready(hands.last);
  if (was && was.long === hands.long && before !== null) {
    const same = hands.list.indexOf(before);
    if (same >= 0) view.scrub.show(same);
  } else view.scrub.show(hands.long ? 0 : view.scrub.value);
}

function place(i) {
  view.scrub.show(Math.max(0, Math.min(hands.last, i)));
}

/** To the next state of a walk, or to the next level where nothing is walked. */
function step(by) {
  view.scrub.stop();
  const states = (i) => walks?.map((_, k) => hands.state(k, i)).join();
  const was = view.scrub.value;
  let i = Math.max(0, Math.min(was + by, hands.last));
  if (walks && by < 0) while (i > 0 && states(i - 1) === states(i)) i -= 1;
  if (walks && by > 0) while (i < hands.last && states(i) === states(was)) i += 1;
  place(i);
  moved();
}

function moved() {
  draw();
  if (probe) look();
}

// What is drawn

const levelOf = (k) => (hands.long && !walks ? 0 : hands.level(k, Math.min(view.scrub.value, hands.last)));

function draw() {
  if (!state || !hands || !source) return;
  const i = Math.min(view.scrub.value, hands.last);
  let scale = null;
  const panes = state.panes.map((pane, k) => {
    const t = levelOf(k);
    const arrows = ready(pane) ? lattices.at("score", pane, t, where()) : null;
    if (arrows && scale === null) scale = scaleOf(arrows);
    return {
      name: ["A", "B", "C", "D"][k],
      title: modelName(pane.model, offers.methods),
      subtitle: caption(pane, t),
      density: usable() ? lattices.at("density", pane, t, where()) : null,
      arrows,
      states: walks?.[k] ?? null,
      at: walks ? hands.state(k, i) : 0,
      drops: drops.map((one) => particle(one, pane, k, i, hands)),
      marks: probe ? { point: [probe.x, probe.y], x0: probe.found[k]?.x0 } : null,
      empty: whyEmpty(pane, { points: usable(), exact: source.exact, learned: learnedHere(), training: jobs.kind === "training" }),
    };
  });
  for (const pane of panes) pane.scale = scale ?? 1;
  view.picture.show({ reach: source.reach, layers, data, drawn: state.source.kind === "drawn" ? state.source.points : null, panes });
  view.clear.hidden = !drops.length;
  say(view.legend, legend(state.panes, source.exact));
  fetchSoon();
  measureSoon();
}

/** What is looked at now, and what may be next. */
function wanted() {
  const shown = state.panes.flatMap((pane, k) => (ready(pane) ? [["score", pane, k], ["density", pane, k]] : []));
  return {
    now: shown.map(([what, pane, k]) => [what, pane, levelOf(k)]),
    next: shown.filter(([, pane]) => hasLevels(pane)),
    where: where(),
    later: jobs.kind !== "training" && !view.scrub.playing,
  };
}

// Figures

function table() {
  if (!source) return;
  const found = state.panes.map((_, k) => facts?.[k] ?? null);
  const t = state.trains === "objectives" ? null : Math.max(1, hands.long ? 1 : hands.list[view.scrub.value]);
  const known = differences.some((value) => value !== null);
  view.figures.replaceChildren(...(facts || known ? [figures(found, expected, differences, t, source.exact ? "exact draws" : "data")] : []));
  const refused = facts?.map(({ refused: sentence }, k) => sentence && `${["A", "B", "C", "D"][k]}: ${sentence}`).filter(Boolean) ?? [];
  if (refused.length) refuse(refused.join(" "));
}

/** How far the learned scores are from the exact ones at the level that is shown. */
async function measure() {
  if (!state || !source?.exact || !learnedHere()) return;
  const t = hands.long ? 1 : hands.list[view.scrub.value];
  const mine = state;
  const found = await Promise.all(state.panes.map(async (pane) => {
    if (!isLearned(pane)) return null;
    try {
      return (await post("/api/field/difference", { ...asked(pane), t })).difference;
    } catch {
      return null;
    }
  }));
  if (mine !== state) return;
  differences = found;
  table();
}
const measureSoon = debounced(measure, 200);

const asked = (pane) => ({ source: state.source, training: training?.id ?? null, pane });

function refuse(sentence) {
  view.refusal.hidden = !sentence;
  say(view.refusal, sentence ?? "");
}

// Look, drop, draw

function choose(value) {
  tool = value;
  view.tools.set(value);
  view.picture.canvas.classList.toggle("drawing", value === "draw");
  if (value === "draw" && state.source.kind !== "drawn") change({ source: { kind: "drawn", points: [] } }, null);
}

function act(x, y, pane, dragging) {
  say(view.here, pair([x, y]));
  if (tool === "draw") {
    if (state.source.points.length >= DRAWN) return refuse(`At most ${DRAWN} points are drawn.`);
    redraw([...state.source.points, [Number(x.toFixed(2)), Number(y.toFixed(2))]]);
  } else if (tool === "drop") {
    if (!dragging) drop(x, y);
  } else {
    probe = { x, y, found: probe?.found ?? [] };
    draw();
    look();
  }
}

const look = debounced(async () => {
  const { x, y } = probe;
  const mine = state;
  const found = await Promise.all(state.panes.map(async (pane, k) => {
    if (!ready(pane)) return null;
    try {
      return await post("/api/field/probe", { ...asked(pane), t: levelOf(k), x: [[x, y]] });
    } catch (error) {
      refuse(error.message);
      return null;
    }
  }));
  if (mine !== state || probe?.x !== x || probe?.y !== y) return;
  probe.found = found;
  view.point.replaceChildren(pointTable(x, y, found));
  draw();
}, 60);

async function drop(x, y) {
  if (drops.length >= offers.largest.dropped) return;
  if (view.scrub.value >= hands.last) place(0);
  view.scrub.stop();
  const from = view.scrub.value;
  const paths = await Promise.all(state.panes.map(async (pane, k) => {
    if (!ready(pane)) return null;
    try {
      const { times, x: points } = await post("/api/field/drop", { ...asked(pane), t: levelOf(k), x: [[x, y]], seed: state.seed + drops.length });
      return { times, points: points.map((one) => one[0]) };
    } catch (error) {
      refuse(error.message);
      return null;
    }
  }));
  drops.push({ x, y, paths, from });
  draw();
  if (!reducedMotion() && !view.scrub.playing) view.scrub.toggle();
}

// Jobs: train, walk

/** Learn what the squares need, then walk samples in each. */
async function run() {
  if (!usable()) return refuse("Draw some points first.");
  refuse(null);
  if (state.panes.some(isLearned) && !(learnedHere() && training.done) && !(await learn())) return;
  await walk();
}

async function train() {
  if (jobs.kind) return jobs.stop();
  if (!usable()) return refuse("Draw some points first.");
  refuse(null);
  await learn();
}

async function learn() {
  training = { id: null, source: JSON.stringify(state.source), trains: state.trains, version: 0, progress: null, done: false };
  const mine = training;
  differences = state.panes.map(() => null);
  walks = facts = expected = null;
  setClock();
  draw();
  const ended = await jobs.follow("training", { source: state.source, trains: state.trains }, (event, id) => {
    mine.id = id;
    if (event.event !== "step") return;
    mine.version = event.i;
    mine.progress = event;
    sayTraining();
    draw();
  });
  mine.done = Boolean(ended);
  sayTraining();
  await measure();
  return mine.done;
}

async function walk() {
  const request = { source: state.source, training: learnedHere() ? training.id : null, panes: state.panes, n: state.n, seed: state.seed };
  const mine = state;
  let id = null;
  const ended = await jobs.follow("walk", request, (event, which) => {
    id = which;
    if (event.event === "step") say(view.cost, `${["A", "B", "C", "D"][event.pane]}: step ${event.i.toLocaleString("en")} of ${event.of.toLocaleString("en")}`);
  });
  if (!ended || mine !== state) return;
  const found = await Promise.all(ended.panes.map(async ({ times, steps }, k) => {
    const { shape, bytes } = await pixels(`/api/jobs/${id}/walk/${k}?what=x`);
    return { count: shape[0], n: shape[1], values: new Float32Array(bytes), times, steps };
  }));
  if (mine !== state) return;
  walks = found;
  facts = ended.panes;
  expected = ended.expected;
  setClock();
  table();
  if (reducedMotion()) {
    place(hands.last);
    draw();
  } else {
    place(0);
    draw();
    if (!view.scrub.playing) view.scrub.toggle();
  }
}

function sayTraining() {
  if (!learnedHere() && !(jobs.kind === "training")) return view.form.training(`A small network, trained here on ${usable() ? "these points" : "the points that you draw"}: about 15 seconds.`, null, false);
  const { progress, done } = training;
  if (!progress) return view.form.training("Starting…", 0, true);
  const { i, of, ms, differences: by } = progress;
  const loss = Object.values(progress.losses);
  const off = Object.entries(by).map(([name, levels]) => Object.entries(levels).map(([t, value]) => `${t === "0" ? name.replace("-vr", "") : `t = ${t}`}: ${(100 * value).toFixed(1)} %`).join(", ")).filter(Boolean);
  const parts = [`Step ${i.toLocaleString("en")} of ${of.toLocaleString("en")}, ${seconds(ms / 1000)}.`];
  if (loss.length === 1) parts.push(`Loss ${loss[0].toFixed(3)}.`);
  if (off.length) parts.push(`Difference from the exact score: ${off.join(", ")}.`);
  view.form.training(parts.join(" "), done ? 1 : i / of, jobs.kind === "training");
}

function face() {
  if (!state || !view.form) return;
  sayTraining();
  say(view.button, jobs.kind ? "Stop" : "Run");
  view.button.classList.toggle("stop", Boolean(jobs.kind));
  if (jobs.kind) return say(view.cost, jobs.kind === "training" ? "Training" : "Sampling");
  const needs = state.panes.some(isLearned) && !(learnedHere() && training.done);
  say(view.cost, needs ? "Trains first, then samples" : `${state.n.toLocaleString("en")} samples in each square`);
}

export default { id: "field", title: "Field", mount, show, hide };
