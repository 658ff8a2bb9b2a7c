// Numbers as text. One way of writing each kind, so that a figure reads the same in every panel.

/** Seconds: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min. */
export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)}\u00a0s`;
  if (value < 60) return `${Math.round(value)}\u00a0s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

/** A count with its unit: 1 network call, 1,200 network calls. */
export function count(value, unit) {
  return `${value.toLocaleString("en")} ${unit}${value === 1 ? "" : "s"}`;
}

/** Four significant digits, without an exponent where it can be avoided. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0 || Number.isInteger(value)) return Math.abs(value) < 1e7 ? value.toLocaleString("en") : value.toExponential(2);
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-4 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** A time of the grid: a level's number, or three digits in continuous time. */
export const time = (t) => (Number.isInteger(t) ? String(t) : String(Number(t.toPrecision(3))));

/** Bytes: 615.8 MB. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(Math.max(value, 1)) / 3), units.length - 1);
  return `${(value / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}
