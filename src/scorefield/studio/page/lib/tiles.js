// Images of a frame as a grid of buttons, large, each pixel of an image in whole pixels of the screen.

import { draw, fit, show } from "/assets/lib/frames.js";
import { h, say } from "/assets/lib/dom.js";

const GAP = 8;
const CAPTION = 20;
const BELOW = 150; // CSS pixels that the scrubber below takes

/**
 * tiles({ label, onpick }) -> { element, shape(of), paint(frames), pick(k) }.
 *
 * shape: { n, w, h, across, captions, names, classes } lays the grid out before there are images, so that nothing
 * moves when they come. paint draws one frame for each image across. onpick(k) is called when the user chooses one.
 */
export function tiles({ label, onpick }) {
  const element = h("div", { class: "tiles", role: "group", "aria-label": label });
  let of = { n: 0 };
  let buttons = [];
  let layout = "";

  function lay() {
    if (!of.n || !element.clientWidth) return;
    const extra = of.captions ? CAPTION : 0;
    const above = innerWidth > 760 ? element.getBoundingClientRect().top + scrollY + BELOW : 0.3 * innerHeight;
    const height = Math.max(240, innerHeight - above);
    const { columns, scale } = fit({ ...of, gap: GAP, extra, width: element.clientWidth, height });
    element.style.setProperty("--columns", columns);
    for (const button of buttons) for (const canvas of button.querySelectorAll("canvas")) show(canvas, of.w, of.h, scale);
    element.dataset.columns = columns;
  }

  function focus(k) {
    for (const [i, button] of buttons.entries()) button.tabIndex = i === k ? 0 : -1;
  }

  element.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const columns = Number(element.dataset.columns);
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: of.n - 1 - at }[event.key];
    if (at < 0 || by === undefined) return;
    event.preventDefault();
    const next = at + by;
    if (next < 0 || next >= of.n) return;
    focus(next);
    buttons[next].focus();
  });
  new ResizeObserver(lay).observe(element);

  return {
    element,
    shape(next) {
      const { n, w, h: high, across = 1, captions = null, names = [] } = next;
      of = { ...next, across };
      const now = JSON.stringify([n, w, high, across]);
      if (now !== layout) {
        layout = now;
        buttons = Array.from({ length: n }, (_, k) =>
          h(
            "button",
            { type: "button", class: "tile", "aria-pressed": "false", onclick: () => { focus(k); onpick(k); } },
            h("span", { class: "pair" }, ...Array.from({ length: across }, () => h("canvas", { width: w, height: high }))),
            h("span", { class: "caption" }),
          ),
        );
        element.replaceChildren(...buttons);
        focus(0);
      }
      buttons.forEach((button, k) => {
        button.setAttribute("aria-label", names[k] ?? `sample ${k}`);
        say(button.lastChild, captions ? captions[k] : "");
        button.lastChild.hidden = !captions;
      });
      lay();
    },
    paint(frames) {
      buttons.forEach((button, k) => {
        const canvases = button.querySelectorAll("canvas");
        frames.forEach((frame, j) => {
          if (k < frame.n) draw(canvases[j], frame, k);
        });
      });
    },
    pick(k) {
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === k)));
      if (k !== null) focus(k);
    },
  };
}
