// What a click in a square does: look at a point, drop a particle, or draw points.

import { post } from "/assets/lib/api.js";
import { segments } from "/assets/lib/controls.js";
import { debounced, h, reducedMotion, say } from "/assets/lib/dom.js";
import { asked, levelOf, now, ready } from "/assets/panels/field/now.js";
import { pair, pointTable } from "/assets/panels/field/tables.js";

const TOOLS = [{ value: "look", text: "Look" }, { value: "drop", text: "Drop a particle" }, { value: "draw", text: "Draw points" }];
const DRAWN = 500;

/**
 * pointer({ draw, redraw, rewind, play, refuse, onchoose }) -> { tools, here, point, clear, choose(tool), act, move, look() }.
 *
 * draw(): the squares. redraw(points): take points drawn by hand. rewind(): to the beginning where the clock is at its
 * end, and stop it. play(): let it run. onchoose(tool): a tool is chosen.
 */
export function pointer({ draw, redraw, rewind, play, refuse, onchoose }) {
  let tool = "look";
  const tools = segments({ legend: "What a click does", options: TOOLS, value: tool, onchange: choose });
  const here = h("span", { class: "soft here", "aria-live": "polite" });
  const point = h("div", { class: "figures-box" });
  const clear = h("button", { type: "button", hidden: true, onclick: () => { now.drops = []; draw(); } }, "Take the particles away");

  function choose(value) {
    tool = value;
    tools.set(value);
    onchoose(value);
  }

  const move = (x, y) => say(here, pair([x, y]));

  function act(x, y, pane, dragging) {
    move(x, y);
    if (tool === "draw") {
      const { points } = now.state.source;
      if (points.length >= DRAWN) return refuse(`At most ${DRAWN} points are drawn.`);
      redraw([...points, [Number(x.toFixed(2)), Number(y.toFixed(2))]]);
    } else if (tool === "drop") {
      if (!dragging) drop(x, y);
    } else {
      now.probe = { x, y, found: now.probe?.found ?? [] };
      draw();
      look();
    }
  }

  const look = debounced(async () => {
    const { state, probe } = now;
    if (!probe) return;
    const { x, y } = probe;
    const found = await Promise.all(state.panes.map((pane, k) => asking(pane, async () => post("/api/field/probe", { ...asked(pane), t: levelOf(k), x: [[x, y]] }))));
    if (state !== now.state || now.probe?.x !== x || now.probe?.y !== y) return;
    now.probe.found = found;
    point.replaceChildren(pointTable(x, y, found));
    draw();
  }, 60);

  async function drop(x, y) {
    const { state, offers, drops } = now;
    if (drops.length >= offers.largest.dropped) return;
    rewind();
    const from = now.at;
    const paths = await Promise.all(state.panes.map((pane, k) => asking(pane, async () => {
      const { times, x: points } = await post("/api/field/drop", { ...asked(pane), t: levelOf(k), x: [[x, y]], seed: state.seed + drops.length });
      return { times, points: points.map((one) => one[0]) };
    })));
    now.drops.push({ x, y, paths, from });
    draw();
    if (!reducedMotion()) play();
  }

  /** What the server says of a square; null where it has no field, or the server refuses. */
  async function asking(pane, ask) {
    if (!ready(pane)) return null;
    try {
      return await ask();
    } catch (error) {
      refuse(error.message);
      return null;
    }
  }

  return {
    tools: tools.element,
    here,
    point,
    clear,
    choose,
    act,
    move,
    look,
    get tool() {
      return tool;
    },
  };
}
