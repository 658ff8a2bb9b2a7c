// Frames of a job: fetched once, kept up to a ceiling, drawn in whole multiples of a pixel.

import { pixels } from "/assets/lib/api.js";

const CEILING = 64 * 2 ** 20; // bytes of all frames that this page keeps
const kept = new Map(); // address -> frame, the least recently used first
let held = 0;

/** A frame: { images: true, n, h, w, c, data: Uint8Array } or, of points, { images: false, n, d, data: Float32Array }. */
export async function frame(address, signal) {
  if (kept.has(address)) {
    const found = kept.get(address);
    kept.delete(address);
    kept.set(address, found);
    return found;
  }
  const { shape, bytes } = await pixels(address, signal);
  const made =
    shape.length > 2
      ? { images: true, n: shape[0], h: shape[1], w: shape[2], c: shape[3] ?? 1, data: new Uint8Array(bytes) }
      : { images: false, n: shape[0], d: shape[1], data: new Float32Array(bytes) };
  kept.set(address, made);
  held += bytes.byteLength;
  for (const [oldest, { data }] of kept) {
    if (held <= CEILING || oldest === address) break;
    kept.delete(oldest);
    held -= data.byteLength;
  }
  return made;
}

/** The address of step i of a job. what: "x0" (the estimate x̂0) or "x" (the state x_t). */
export const address = (job, i, what) => `/api/jobs/${encodeURIComponent(job)}/frame/${i}?what=${what}`;

/** Image k of a frame, one canvas pixel a pixel. `show` says how large it is drawn. */
export function draw(canvas, { h, w, c, data }, k) {
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const image = new ImageData(w, h);
  const start = k * h * w * c;
  for (let pixel = 0; pixel < h * w; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * pixel + channel] = data[start + pixel * c + (c === 1 ? 0 : channel)];
    }
    image.data[4 * pixel + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Draw a pixel as `scale` whole pixels of the screen. */
export function show(canvas, w, h, scale) {
  canvas.style.width = `${(w * scale) / devicePixelRatio}px`;
  canvas.style.height = `${(h * scale) / devicePixelRatio}px`;
}

/** The largest scale with which an image of w pixels is at most `room` CSS pixels wide. At least 1. */
export const scaleFor = (w, room) => Math.max(1, Math.floor((room * devicePixelRatio) / w));

/**
 * Columns and scale that show n images as large as a box allows.
 *
 * w, h: of one image; across: images side by side in one tile; extra: CSS pixels below each; classes: labels in
 * turn, which then stand in columns where that costs little.
 */
export function fit({ n, w, h, across = 1, gap, extra, width, height, classes = 1 }) {
  let best = { columns: 1, scale: 1, worth: 0 };
  for (let columns = 1; columns <= n; columns++) {
    const rows = Math.ceil(n / columns);
    const roomX = (width - gap * (columns - 1)) / columns / across;
    const roomY = (height - gap * (rows - 1)) / rows - extra;
    const scale = Math.floor((Math.min(roomX / w, roomY / h, 320 / Math.max(w, h)) || 0) * devicePixelRatio);
    if (scale < 1) continue;
    const worth = scale * (n % columns ? 1 : 1.15) * (classes > 1 && columns % classes === 0 ? 1.2 : 1);
    if (worth >= best.worth) best = { columns, scale, worth };
  }
  if (!best.worth) {
    const columns = Math.max(1, Math.floor((width + gap) / (across * Math.max(w, 48) + gap)));
    return { columns: Math.min(columns, n), scale: Math.max(1, scaleFor(w, (width - gap * (columns - 1)) / columns / across)) };
  }
  return { columns: best.columns, scale: best.scale };
}

/** Points of a frame as dots in a square of `extent` around 0. The canvas has the size that its style gives it. */
export function scatter(canvas, { n, d, data }, extent, colour) {
  const side = Math.round(canvas.clientWidth * devicePixelRatio);
  if (canvas.width !== side) Object.assign(canvas, { width: side, height: side });
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, side, side);
  pen.fillStyle = colour;
  const place = (value) => ((value / extent + 1) / 2) * side;
  for (let i = 0; i < n; i++) {
    pen.beginPath();
    pen.arc(place(data[i * d]), side - place(d > 1 ? data[i * d + 1] : 0), 2.5 * devicePixelRatio, 0, 2 * Math.PI);
    pen.fill();
  }
}

/** The largest absolute coordinate of a frame of points. */
export const reach = ({ data }) => data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
