// A slider over the steps of something: play, arrow keys, and the grid's times as ticks.

import { h, icon, reducedMotion, say } from "/assets/lib/dom.js";
import { time } from "/assets/lib/numbers.js";

const LABELS = [1, 2, 5, 10, 20, 25, 50, 100, 200]; // steps between two labelled ticks
const PASS = 3000; // ms that playing all steps takes, within the limits below

/**
 * scrubber({ label, onstep, text, pass }) -> { element, times(list), ready(count), show(i), value, playing, toggle(), stop() }.
 *
 * text(i): what is said of step i; its number and time if left out. pass(): milliseconds that playing all steps takes.
 * onstep(i) is called when the user, or playing, moves to step i. times: one a step and one more, from T down; the
 * ticks. ready: steps that are there already; the slider goes no further.
 */
export function scrubber({ label, onstep, text, pass = () => PASS }) {
  const slider = h("input", { type: "range", min: 0, max: 1, step: 1, value: 0, "aria-label": label, disabled: true });
  const button = h("button", { type: "button", class: "round", "aria-label": "Play", disabled: true, onclick: toggle }, icon("play"));
  const ticks = h("div", { class: "ticks", "aria-hidden": "true" });
  const place = h("span", { class: "place" });
  const element = h("div", { class: "scrubber" }, button, h("div", { class: "track" }, slider, ticks), place);
  const words = text ?? said;
  let list = [];
  let there = 0;
  let timer = 0;

  function said(i) {
    if (!list.length) return "";
    return `step ${i} of ${list.length - 1}, t = ${time(list[i])}`;
  }

  function show(i) {
    slider.value = i;
    slider.setAttribute("aria-valuetext", words(i));
    say(place, words(i));
    slider.style.setProperty("--at", `${list.length > 1 ? (100 * i) / (list.length - 1) : 0}%`);
  }

  function move(i) {
    const at = Math.max(0, Math.min(i, there));
    show(at);
    onstep(at);
  }

  function face() {
    button.replaceChildren(icon(timer ? "pause" : "play"));
    button.setAttribute("aria-label", timer ? "Pause" : "Play");
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    face();
  }

  function toggle() {
    if (timer) return stop();
    if (Number(slider.value) >= there) move(0);
    const every = Math.max(reducedMotion() ? 500 : 40, Math.min(400, pass() / Math.max(there, 1)));
    timer = setInterval(() => {
      move(Number(slider.value) + 1);
      if (Number(slider.value) >= there) stop();
    }, every);
    face();
  }

  slider.addEventListener("input", () => {
    stop();
    move(Number(slider.value));
  });
  slider.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    toggle();
  });

  return {
    element,
    show,
    toggle,
    stop,
    get value() {
      return Number(slider.value);
    },
    get playing() {
      return timer !== 0;
    },
    times(grid) {
      list = grid;
      const last = Math.max(list.length - 1, 1);
      slider.max = last;
      const every = Math.ceil(last / 100); // at most a hundred ticks
      const named = LABELS.find((size) => size >= last / 8) ?? Math.ceil(last / 8);
      // The last label would touch the one before it unless that is far enough away.
      const says = (i) => i === last || (i % named === 0 && last - i >= named / 2);
      ticks.replaceChildren(
        ...list.flatMap((t, i) => {
          if (i % every && i !== last) return [];
          const tick = h("span", { class: says(i) ? "tick named" : "tick" }, says(i) ? h("span", {}, time(t)) : null);
          tick.style.left = `${(100 * i) / last}%`;
          return [tick];
        }),
      );
      show(Math.min(Number(slider.value), last));
    },
    ready(steps) {
      there = steps;
      slider.disabled = button.disabled = steps < 1;
      slider.style.setProperty("--ready", `${list.length > 1 ? (100 * steps) / (list.length - 1) : 0}%`);
    },
  };
}
