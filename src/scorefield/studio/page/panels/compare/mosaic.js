// The samples of a cell on one canvas: images side by side, or points in the plane.

import { reach, scaleFor, scatter, show } from "/assets/lib/frames.js";

const BETWEEN = 1; // pixels of an image between two of them

/** Columns of n images in a square. */
const across = (n) => Math.ceil(Math.sqrt(n));

/** The size of a canvas for n samples of a shape, drawn at most `room` CSS pixels wide. */
export function size(canvas, n, shape, room) {
  const images = shape.length === 3;
  canvas.classList.toggle("dots", !images);
  if (!images) {
    canvas.style.width = canvas.style.height = `${Math.round(room)}px`;
    return;
  }
  const columns = across(n);
  const rows = Math.ceil(n / columns);
  const w = columns * (shape[1] + BETWEEN) - BETWEEN;
  const high = rows * (shape[0] + BETWEEN) - BETWEEN;
  if (canvas.width !== w || canvas.height !== high) Object.assign(canvas, { width: w, height: high });
  show(canvas, w, high, scaleFor(w, room));
}

/** Draw the samples of a frame. extent: half of the side of the square that shows points. */
export function paint(canvas, frame, extent) {
  if (!frame.images) return scatter(canvas, frame, extent, getComputedStyle(canvas).color);
  const { n, h, w, c, data } = frame;
  const columns = across(n);
  const pen = canvas.getContext("2d");
  for (let k = 0; k < n; k++) {
    const image = new ImageData(w, h);
    for (let pixel = 0; pixel < h * w; pixel++) {
      for (let channel = 0; channel < 3; channel++) image.data[4 * pixel + channel] = data[(k * h * w + pixel) * c + (c === 1 ? 0 : channel)];
      image.data[4 * pixel + 3] = 255;
    }
    pen.putImageData(image, (k % columns) * (w + BETWEEN), Math.floor(k / columns) * (h + BETWEEN));
  }
}

/** Half of the side of a square that holds the points of frames. */
export const extentOf = (frames) => Math.max(1, ...frames.filter(({ images }) => !images).map((one) => Math.ceil(2 * reach(one)) / 2));

/** { frame: |a − b| with its largest value white, largest, rms } of two frames of images. */
export function difference(a, b) {
  let largest = 0;
  let sum = 0;
  a.data.forEach((one, i) => {
    const by = Math.abs(one - b.data[i]);
    largest = Math.max(largest, by);
    sum += by * by;
  });
  const data = a.data.map((one, i) => Math.round((255 * Math.abs(one - b.data[i])) / (largest || 1)));
  return { frame: { ...a, data }, largest, rms: Math.sqrt(sum / a.data.length) };
}
