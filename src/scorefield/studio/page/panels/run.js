// Run: what a run is, by what it was made, what was measured of it, and the commands that go on with it.

import { get } from "/assets/lib/api.js";
import { chart, cursor } from "/assets/lib/chart.js";
import { field, select } from "/assets/lib/controls.js";
import { h } from "/assets/lib/dom.js";
import { bytes, short } from "/assets/lib/numbers.js";

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
  try {
    const facts = await get(`/api/runs/${id}`);
    if (mine === shown) draw(facts);
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
  const rows = all.flatMap(({ time, figures }) => Object.entries(figures).map(([key, figure]) => ({ time, key, ...figure })));
  return h(
    "div",
    { class: "table" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...["figure", "value", "held-out", "made with", "when"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.key), h("td", {}, `${short(row.value)}${row.error ? ` ± ${short(row.error)}` : ""}`), h("td", {}, short(row.heldout)), h("td", { class: "soft" }, stamp(row.stamp)), h("td", { class: "soft" }, String(row.time ?? "").slice(0, 16).replace("T", " "))))),
    ),
  );
}

const stamp = (made) => Object.entries(made ?? {}).filter(([, value]) => value !== null && typeof value !== "object").map(([key, value]) => `${key} ${value}`).join(", ");

function command({ what, command: text }) {
  const copy = h("button", { type: "button", "aria-label": `Copy: ${what}`, onclick: async () => { await navigator.clipboard.writeText(text); ctx.toast("The command is copied."); } }, "Copy");
  return h("div", { class: "one-command" }, h("span", { class: "soft" }, what), h("code", { class: "command", tabindex: 0 }, text), copy);
}

export default { id: "run", title: "Run", mount, show, hide: () => { shown++; } };
