// Field: scores, densities, samples and paths in the plane. Squares side by side share their points and their noise.

import { get, numbers, post } from "/assets/lib/api.js";
import { segments } from "/assets/lib/controls.js";
import { debounced, h, reducedMotion, say } from "/assets/lib/dom.js";
import { scrubber } from "/assets/lib/scrub.js";
import { clock } from "/assets/panels/field/clock.js";
import { form } from "/assets/panels/field/form.js";
import { forget as forgetWalks, leveled, now, usable } from "/assets/panels/field/now.js";
import { picture } from "/assets/panels/field/picture.js";
import { plane } from "/assets/panels/field/plane.js";
import { pointer } from "/assets/panels/field/pointer.js";
import { fromParams, fromPreset, toParams } from "/assets/panels/field/state.js";
import { work } from "/assets/panels/field/work.js";

const PASSES = { normal: 4000, slow: 16000 }; // ms that playing takes
const UNKNOWN = { exact: true, reach: 3, components: 0 }; // of points that are not there

let ctx;
let view; // { side, form, scrub, picture, pointer, work, … }
let speed = "normal";
let front = false;

function mount(root, context) {
  ctx = context;
  const button = h("button", { type: "button", class: "run", disabled: true, onclick: () => (view.work.busy ? view.work.stop() : view.work.run()) }, "Run");
  const cost = h("span", { class: "cost", role: "status" });
  const refusal = h("p", { class: "refusal", hidden: true });
  const refuse = (sentence) => {
    refusal.hidden = !sentence;
    say(refusal, sentence ?? "");
  };
  const side = h("form", { class: "side", "aria-label": "What to show", onsubmit: (event) => { event.preventDefault(); if (now.state && !view.work.busy) view.work.run(); } });
  const squares = plane({ label: "The plane. Arrow keys move a cross, Enter acts at it.", onact: (...words) => view.pointer.act(...words), onmove: (x, y) => view.pointer.move(x, y) });
  const scrub = scrubber({ label: "Time", onstep: moved, text: (i) => now.hands?.text(Math.min(i, now.hands.last)) ?? "", pass: () => PASSES[speed] });
  const pace = segments({ legend: "Speed", options: [{ value: "normal", text: "Normal" }, { value: "slow", text: "Slow" }], value: speed, onchange: (value) => { speed = value; } });
  view = { button, refuse, side, scrub, demo: h("p", { class: "demo", hidden: true }) };
  view.pointer = pointer({ draw: () => view.picture.draw(), redraw, rewind, play, refuse, onchoose: choose });
  view.picture = picture({ plane: squares, clear: view.pointer.clear, learning: () => view.work.learning(), playing: () => scrub.playing, refuse });
  view.work = work({ button, cost, refuse, draw: view.picture.draw, ended, form: () => view.form });
  view.canvas = squares.canvas;
  root.append(
    side,
    h("div", { class: "work" },
      view.demo,
      h("div", { class: "bar" }, view.pointer.tools, view.pointer.here, view.picture.boxes),
      squares.element,
      scrub.element,
      h("div", { class: "actions" }, h("button", { type: "button", onclick: () => step(-1) }, "One step back"), h("button", { type: "button", onclick: () => step(1) }, "One step"), pace.element, h("button", { type: "button", onclick: copy }, "Copy as Python"), view.pointer.clear),
      view.pointer.point,
      view.picture.figures,
      view.picture.legend),
  );
  side.append(h("div", { class: "groups" }), h("div", { class: "launch" }, button, cost, refusal));
  addEventListener("keydown", (event) => {
    if (!front || !now.state) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); view.work.run(); }
    if (event.key === "Escape") view.work.stop();
  });
}

async function show(params) {
  front = true;
  if (!now.offers) {
    now.offers = await get("/api/field");
    for (const one of now.offers.methods) one.title = one.name.replace("-vr", "");
    view.form = form(now.offers, { example, change, pane: changePane, undo: () => redraw(now.state.source.points.slice(0, -1)), clear: () => redraw([]), train: view.work.train });
    view.side.firstChild.replaceWith(view.form.element);
    offerDemo();
  }
  const next = fromParams(params, now.offers);
  if (now.state && JSON.stringify(toParams(next, now.offers)) === JSON.stringify(toParams(now.state, now.offers))) return view.picture.draw();
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
  view.work.stop();
  const other = !now.state || JSON.stringify(next.source) !== JSON.stringify(now.state.source);
  now.state = next;
  forget();
  if (other) await readSource();
  const preset = now.offers.presets.find(({ id }) => id === now.state.show);
  setClock();
  place(at !== null && at !== undefined ? now.hands.last - Number(at) : now.hands.last - (preset?.t ?? 0));
  const { tool } = view.pointer;
  view.pointer.choose(now.state.source.kind === "drawn" ? "draw" : tool === "draw" ? "look" : tool);
  refresh();
}

function forget() {
  forgetWalks();
  view.pointer.point.replaceChildren();
  view.refuse(null);
}

async function readSource() {
  now.source = now.data = null;
  if (!usable()) {
    now.source = UNKNOWN;
    return;
  }
  const mine = now.state.source;
  try {
    const [said, points] = await Promise.all([post("/api/field/source", mine), numbers("/api/field/points", mine)]);
    if (mine !== now.state.source) return;
    now.source = said;
    now.data = points.data;
    view.form.say("source", null);
  } catch (error) {
    view.form.say("source", error.message);
    now.source = UNKNOWN;
  }
}

/** Show the state: controls, address, fields, figures. */
function refresh() {
  view.button.disabled = false;
  view.form.show(now.state, now.source);
  update();
  view.picture.measure();
}

/** Show what follows from the controls. */
function update() {
  ctx.keep(toParams(now.state, now.offers));
  view.work.face();
  view.picture.draw();
  view.picture.table();
}

// What is chosen

function example(id) {
  const preset = now.offers.presets.find((one) => one.id === id);
  if (!preset) {
    now.state.show = null;
    return refresh();
  }
  adopt(fromPreset(preset, now.state.seed)).then(() => {
    view.form.focus("example");
    if (!preset.trains) view.work.run();
  });
}

async function change(changes, name) {
  const { defaults } = now.offers;
  const points = changes.source !== undefined;
  now.state = { ...now.state, ...changes, show: name === "seed" ? now.state.show : null };
  if (points && now.state.trains === "objectives") Object.assign(now.state, { trains: "levels", panes: [{ ...defaults.pane }, { ...defaults.pane, model: "learned" }] });
  if (points) return reopen(name);
  forget();
  setClock();
  update();
}

/** Show other points. */
async function reopen(name) {
  view.work.stop();
  forget();
  await readSource();
  if (now.source && !now.source.exact) now.state.panes = ["ddim", "dpm-solver"].map((sampler) => ({ ...now.offers.defaults.pane, model: "learned", sampler, steps: 10 }));
  setClock();
  place(now.hands.last);
  view.pointer.choose(now.state.source.kind === "drawn" ? "draw" : "look");
  refresh();
  if (name) view.form.focus(name);
}

function changePane(k, changes, name) {
  const shown = ["model", "sampler", "grid"].some((part) => part in changes);
  now.state = { ...now.state, show: null, panes: now.state.panes.map((pane, i) => (i === k ? { ...pane, ...changes } : pane)) };
  forget();
  setClock();
  if (!shown) return update();
  refresh();
  view.form.focus(name);
}

/** A tool of the pointer is chosen. */
function choose(tool) {
  view.canvas.classList.toggle("drawing", tool === "draw");
  if (tool === "draw" && now.state.source.kind !== "drawn") change({ source: { kind: "drawn", points: [] } }, null);
}

// Points drawn by hand

const settled = debounced(async () => {
  await readSource();
  refresh();
}, 250);

function redraw(points) {
  view.work.stop();
  now.state = { ...now.state, show: null, source: { kind: "drawn", points } };
  forget();
  setClock();
  view.form.points(points.length);
  view.picture.draw();
  settled();
}

// The clock

function setClock() {
  const was = now.hands;
  const before = was ? was.list[Math.min(now.at, was.last)] : null;
  now.hands = clock(now.offers.levels, now.walks, leveled());
  view.scrub.times(now.hands.list);
  view.scrub.ready(now.hands.last);
  if (was && was.long === now.hands.long) {
    const same = now.hands.list.indexOf(before);
    if (same >= 0) view.scrub.show(same);
  } else view.scrub.show(now.hands.long ? 0 : view.scrub.value);
  now.at = view.scrub.value;
}

function place(i) {
  view.scrub.show(Math.max(0, Math.min(now.hands.last, i)));
  now.at = view.scrub.value;
}

/** To the next state of a walk, or to the next level where nothing is walked. */
function step(by) {
  const { walks, hands } = now;
  view.scrub.stop();
  const states = (i) => walks?.map((_, k) => hands.state(k, i)).join();
  const was = now.at;
  let i = Math.max(0, Math.min(was + by, hands.last));
  if (walks && by < 0) while (i > 0 && states(i - 1) === states(i)) i -= 1;
  if (walks && by > 0) while (i < hands.last && states(i) === states(was)) i += 1;
  place(i);
  moved(i);
}

function moved(i) {
  now.at = i;
  view.picture.draw();
  if (now.probe) view.pointer.look();
}

function rewind() {
  if (now.at >= now.hands.last) place(0);
  view.scrub.stop();
}

function play() {
  if (!view.scrub.playing) view.scrub.toggle();
}

async function copy() {
  try {
    await navigator.clipboard.writeText((await post("/api/field/python", view.work.walked())).python);
    ctx.toast(`The lines of Python are copied. They make the samples of each square: ${["a", "b", "c", "d"].slice(0, now.state.panes.length).join(", ")}.`);
  } catch (error) {
    view.refuse(error.message);
  }
}

/** A job begins to learn ("restart"), has learned, or has walked samples. */
async function ended(what) {
  if (what === "training") return view.picture.measure();
  setClock();
  if (what === "walk") {
    view.picture.table();
    place(reducedMotion() ? now.hands.last : 0);
  }
  view.picture.draw();
  if (what === "walk" && !reducedMotion()) play();
}

export default { id: "field", title: "Field", mount, show, hide };
