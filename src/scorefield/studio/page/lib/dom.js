// Elements in one line: h("button", { class: "quiet", onclick: run }, "Run").

const SVG = "http://www.w3.org/2000/svg";
// These change while a page is used, so they are set as properties; everything else is an attribute.
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "textContent", "indeterminate", "open"]);

/** An HTML element. Names that start with "on" are listeners; null and false leave an attribute out. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** An SVG element, likewise. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put text into an element, only where it differs, so that screen readers say it once. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** One icon of the page's set, drawn in the colour of the text around it. */
export function icon(name) {
  return svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

const ICONS = {
  play: "M4.500 2.800v10.400l8.500-5.200z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  die: "M3 2.500h10a.5.5 0 0 1 .5.5v10a.5.5 0 0 1-.5.5H3a.5.5 0 0 1-.5-.5V3a.5.5 0 0 1 .5-.5zM5.500 5.500v.01M10.500 5.500v.01M8 8v.01M5.500 10.500v.01M10.500 10.500v.01",
  locked: "M4 7.500h8v6H4zM5.500 7.500V5a2.500 2.500 0 0 1 5 0v2.500",
  open: "M4 7.500h8v6H4zM5.500 7.500V4.500a2.500 2.500 0 0 1 4.900-.7",
  close: "M4 4l8 8M12 4l-8 8",
};

/** Call `then` once nothing has asked for `wait` milliseconds. */
export function debounced(then, wait) {
  let timer = 0;
  return (...words) => {
    clearTimeout(timer);
    timer = setTimeout(() => then(...words), wait);
  };
}

export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Hand files that are dropped on an element to `take(file, target)`, and mark the element while one is above it. */
export function dropTarget(element, take) {
  element.addEventListener("dragover", (event) => { event.preventDefault(); element.classList.add("dropping"); });
  element.addEventListener("dragleave", (event) => { if (!element.contains(event.relatedTarget)) element.classList.remove("dropping"); });
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("dropping");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0], event.target);
  });
}
