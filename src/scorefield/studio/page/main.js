// The frame of the page: token, panels, navigation.
//
// A panel is a module panels/NAME.js that exports { id, title, mount(root, ctx), show(params), hide() }, and one line
// in PANELS. mount is called once, with an empty element; show each time the panel comes to the front or the address
// changes, with the address's parameters as text; hide when another panel comes.
// ctx has what a panel needs of the page:
//   server           what GET /api/state said: { version, read_only, device, runs, data, recipes, … }
//   panels           the ids of all panels, so that one can offer to go to another
//   runs(again)      the cards of the runs; again: look for new ones first
//   keep(params)     write the panel's state into the address
//   go(panel, params)   go to another panel
//   toast(sentence)  say something that needs no answer
// Elements come from lib/dom.js, requests from lib/api.js, controls from lib/controls.js, pictures from lib/frames.js
// and lib/tiles.js, curves from lib/chart.js. A panel styles itself by classes of base.css; inline styles are refused
// by the page's Content-Security-Policy, but element.style.setProperty is allowed.

import { get, hasToken, keepToken } from "/assets/lib/api.js";
import { h, say } from "/assets/lib/dom.js";
import { format, parse } from "/assets/lib/state.js";
import compare from "/assets/panels/compare.js";
import edit from "/assets/panels/edit.js";
import field from "/assets/panels/field.js";
import run from "/assets/panels/run.js";
import sample from "/assets/panels/sample.js";
import training from "/assets/panels/training.js";

const PANELS = [sample, training, field, compare, edit, run];

const main = document.querySelector("main");
const nav = document.querySelector("nav");
const toast = document.querySelector(".toast");
const last = {}; // panel -> the fragment that it had when it was left
let current = null;
let roots = null;
let first = PANELS[0]; // of an address that names no panel
let hiding = 0;

function notice(title, ...sentences) {
  main.replaceChildren(h("section", { class: "notice" }, h("h1", {}, title), ...sentences.map((text) => h("p", {}, text))));
}

function face(server) {
  say(document.querySelector(".machine"), `${server.device} · ${server.threads} thread${server.threads === 1 ? "" : "s"}${server.read_only ? " · read-only" : ""}`);
  nav.replaceChildren(
    ...PANELS.map(({ id, title }) =>
      h("a", { href: format(id), "data-panel": id, onclick: (event) => {
        event.preventDefault();
        location.hash = last[id] ?? format(id);
      } }, title),
    ),
  );
}

function follow() {
  const { panel, params } = parse(location.hash);
  const next = PANELS.find(({ id }) => id === panel) ?? first;
  if (current !== next) {
    current?.hide();
    for (const [id, root] of Object.entries(roots)) root.hidden = id !== next.id;
    for (const link of nav.children) {
      if (link.dataset.panel === next.id) {
        link.setAttribute("aria-current", "page");
        link.scrollIntoView({ block: "nearest", inline: "nearest" }); // a narrow screen has no room for all
      } else link.removeAttribute("aria-current");
    }
    current = next;
    document.title = `${next.title} · scorefield studio`;
  }
  last[next.id] = location.hash || format(next.id);
  next.show(params);
}

function context(server, id) {
  return {
    server,
    panels: PANELS.map((panel) => panel.id),
    async runs(again = false) {
      if (again) server.runs = await get("/api/runs");
      return server.runs;
    },
    keep(params) {
      const fragment = format(id, params);
      last[id] = fragment;
      if (current?.id === id && fragment !== location.hash) history.replaceState(null, "", fragment);
    },
    go(panel, params) {
      location.hash = format(panel, params);
    },
    toast(sentence) {
      clearTimeout(hiding);
      say(toast, sentence);
      toast.classList.add("shown");
      hiding = setTimeout(() => toast.classList.remove("shown"), 4000);
    },
  };
}

async function start() {
  const { token, panel, params } = parse(location.hash);
  if (token) {
    keepToken(token);
    history.replaceState(null, "", panel ? format(panel, params) : location.pathname);
  }
  if (!hasToken()) {
    return notice(
      "This page needs the address that the command printed",
      "`scorefield studio` prints an address that ends in #token=…, which lets this page speak to it. Open that address.",
    );
  }
  notice("Loading…");
  let server;
  try {
    server = await get("/api/state");
  } catch (error) {
    if (error.status === 403) return notice("This address belongs to an earlier start", `${error.message} Open the address that \`scorefield studio\` printed last.`);
    return notice("The server does not answer", error.message);
  }
  face(server);
  if (!server.runs.length) first = field;
  roots = Object.fromEntries(PANELS.map(({ id }) => [id, h("div", { class: `panel panel-${id}`, hidden: true })]));
  main.replaceChildren(...Object.values(roots));
  for (const one of PANELS) one.mount(roots[one.id], context(server, one.id));
  addEventListener("hashchange", follow);
  follow();
}

start();
