// Run: what a run is, by what it was made, what was measured of it, and the commands that go on with it.

import { get } from "/assets/lib/api.js";
import { chart, cursor } from "/assets/lib/chart.js";
import { field, select } from "/assets/lib/controls.js";
import { h } from "/assets/lib/dom.js";
import { bytes, count, short } from "/assets/lib/numbers.js";

let ctx;
let place;
let choice;
let shown = 0;

function mount(root, context) {
  ctx = context;
  choice = h("div", { class: "choice" });
  place = h("div", { class: "sheet" });
  root.append(choice, place);
}

async function show(params) {
  const mine = ++shown;
  const runs = await ctx.runs(true);
  if (mine !== shown) return;
  if (!runs.length) {
    choice.replaceChildren();
    return place.replaceChildren(h("h1", {}, "No run yet"), h("p", { class: "empty" }, `There is no run in ${ctx.server.root ?? "the folders given"}. Train the demo with \`scorefield train portraits\`; it appears here as soon as it has begun.`));
  }
  const id = runs.some((run) => String(run.id) === params.run) ? Number(params.run) : runs[0].id;
  const pick = field({ label: "Run", control: select(runs.map((run) => ({ value: String(run.id), text: run.name })), String(id), (chosen) => { ctx.keep({ run: chosen }); show({ run: chosen }); }) });
  if (choice.querySelector("select")?.value !== String(id) || choice.querySelectorAll("option").length !== runs.length) choice.replaceChildren(pick.element);
  if (place.dataset.run !== String(id)) place.replaceChildren(h("h1", {}, runs.find((run) => run.id === id).name), h("p", { class: "empty" }, "Reading the run…"));
  try {
    const facts = await get(`/api/runs/${id}`);
    if (mine !== shown) return;
    draw(facts);
    place.dataset.run = id;
  } catch (error) {
    if (mine === shown) place.replaceChildren(h("p", { class: "refusal" }, error.message));
  }
}

function draw(facts) {
  if (facts.problem) return place.replaceChildren(h("h1", {}, facts.name), h("p", { class: "refusal" }, facts.problem));
  const process = facts.process && chart({ label: "ln σ/α by t", shared: cursor() });
  place.replaceChildren(
    h("div", {}, h("h1", {}, facts.name), h("p", { class: "soft" }, [facts.title, facts.paper].filter(Boolean).join(". "))),
    h("div", { class: "cards" },
      h("section", { class: "card" }, h("h2", {}, "What it is"), list(facts.rows)),
      facts.blocks?.length ? h("section", { class: "card" }, h("h2", {}, "Parameters"), blocks(facts.blocks)) : null,
      process ? h("section", { class: "card" }, h("h2", {}, "Process"), process.element) : null,
      facts.data ? h("section", { class: "card" }, h("h2", {}, "Data"), data(facts.data)) : null,
      facts.weights ? h("section", { class: "card" }, h("h2", {}, "Weights"), facts.weights.problem ? h("p", { class: "refusal" }, facts.weights.problem) : list([["size", bytes(facts.weights.bytes)], ["SHA-256", facts.weights.sha256]])) : null,
      h("section", { class: "card wide" }, h("h2", {}, "Evaluations"), evaluations(facts)),
      h("section", { class: "card wide" }, h("h2", {}, "Commands"), ...facts.commands.map(command)),
      h("details", { class: "card wide" }, h("summary", {}, "config.toml"), h("pre", { tabindex: 0 }, facts.config)),
    ),
  );
  if (process) {
    const { t, log_ratio: ratio } = facts.process;
    process.draw({ series: [{ name: "ln σ/α", x: t, y: ratio }] });
  }
}

const list = (rows) => h("dl", { class: "facts" }, ...rows.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, String(text))]));

function blocks(all) {
  const most = Math.max(...all.map(({ parameters }) => parameters), 1);
  return h("dl", { class: "bars" }, ...all.flatMap(({ name, parameters }) => [h("dt", {}, name), h("dd", {}, h("meter", { min: 0, max: most, value: parameters, "aria-label": name }), h("span", {}, parameters.toLocaleString("en")))]));
}

function data({ source, examples, shape, range, bins, holdout, fingerprint, classes, unreadable }) {
  const rows = [["source", source], ["examples", examples?.toLocaleString("en")], ["shape", shape?.join(" × ")], ["range", range?.join(" … ")], ["bins", bins], ["held out", holdout], ["fingerprint", fingerprint]];
  const known = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "div",
    {},
    list(known),
    classes?.length ? h("p", { class: "soft" }, classes.map(({ name, examples: n }) => (n === null || n === undefined ? name : `${name} ${n.toLocaleString("en")}`)).join(" · ")) : null,
    unreadable?.count ? h("details", {}, h("summary", {}, `${unreadable.count} unreadable files`), list(unreadable.files.map(({ name, reason }) => [name, reason]))) : null,
  );
}

function evaluations({ name, evaluations: all }) {
  if (!all?.length) return h("p", { class: "soft" }, `Nothing was measured yet. \`scorefield evaluate ${name}\` compares samples with held-out images.`);
  return h("div", {}, ...all.map((one, i) => evaluation(one, i === 0)));
}

/** One evaluation: what it was made with, and its figures. */
function evaluation({ time, figures, warnings }, open) {
  const made = Object.assign({}, ...Object.values(figures).map(({ stamp }) => stamp));
  const when = String(time ?? "").slice(0, 16).replace("T", " ");
  const head = ["figure", "value", "held-out"].map((text) => h("th", { scope: "col" }, text));
  const rows = Object.entries(figures).map(([name, { value, error, heldout }]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, `${short(value)}${error ? ` ± ${short(error)}` : ""}`), h("td", {}, short(heldout))));
  return h(
    "details",
    { class: "evaluation", open },
    h("summary", {}, [when, briefly(made.sampling)].filter(Boolean).join(": ")),
    h("div", { class: "table" }, h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows))),
    ...(warnings ?? []).map((text) => h("p", { class: "soft" }, text)),
    h("h3", {}, "Made with"),
    list(Object.entries(made).map(([name, parts]) => [name, parts !== null && typeof parts === "object" ? pairs(parts) : parts])),
  );
}

/** The sampler of an evaluation in a few words. */
function briefly(sampling) {
  if (!sampling) return "";
  const { sampler, steps, guidance, samples } = sampling;
  return [sampler, steps && count(steps, "step"), guidance, samples && count(samples, "sample")].filter(Boolean).join(", ");
}

/** The values of a table as text. */
const pairs = (parts) => Object.entries(parts).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${value}`).join(", ");

function command({ what, command: text }) {
  const copy = h("button", { type: "button", "aria-label": `Copy: ${what}`, onclick: async () => { await navigator.clipboard.writeText(text); ctx.toast("The command is copied."); } }, "Copy");
  return h("div", { class: "one-command" }, h("span", { class: "soft" }, what), h("code", { class: "command", tabindex: 0 }, text), copy);
}

export default { id: "run", title: "Run", mount, show, hide: () => { shown++; } };
