// What the Field panel shows: one object, which the panel's modules read and change.

import { hasLevels, isLearned } from "/assets/panels/field/state.js";

export const NAMES = ["A", "B", "C", "D"]; // of the squares

export const now = {
  offers: null, // what the server can show
  state: null, // what is chosen
  source: null, // what the server says of the points
  data: null, // Float32Array of some of them
  hands: null, // the clock
  at: 0, // its position
  walks: null, // [{ count, n, values, times, steps }]
  facts: null, // what is known of their last states, a square each
  expected: null, // the same of exact draws
  training: null, // { id, source, trains, version, progress, done } of the model that is learned
  differences: [], // of each square at the level that is shown
  drops: [], // { x, y, paths: [{ times, points }], from }
  probe: null, // { x, y, found: [ … ] }
};

/** Walks, particles and the point that is looked at are of earlier settings. */
export function forget() {
  Object.assign(now, { walks: null, facts: null, expected: null, probe: null, drops: [] });
  now.differences = now.state.panes.map(() => null);
}

/** Whether there are points. */
export const usable = () => now.state.source.kind !== "drawn" || now.state.source.points.length > 0;

/** Whether a model was learned on these points. */
export function learnedHere() {
  const { training, state } = now;
  return Boolean(training && training.version && training.source === JSON.stringify(state.source) && training.trains === state.trains);
}

/** Whether a square has a field. */
export const ready = (pane) => usable() && (!isLearned(pane) || learnedHere()) && (now.source?.exact || !pane.model.startsWith("exact"));

/** Whether a model has to be learned before samples can be walked. */
export const mustLearn = () => now.state.panes.some(isLearned) && !(learnedHere() && now.training.done);

/** The level of square k at the clock's position. */
export function levelOf(k) {
  const { hands, walks } = now;
  return hands.long && !walks ? 0 : hands.level(k, Math.min(now.at, hands.last));
}

/** The level at which a learned score is compared with the exact one. */
export function comparedAt() {
  const { hands } = now;
  return Math.max(1, hands.long ? 1 : hands.list[Math.min(now.at, hands.last)]);
}

/** What the server needs to know of a square's field. */
export const asked = (pane) => ({ source: now.state.source, training: now.training?.id ?? null, pane });

/** What fields are kept by. */
export const where = () => ({ source: now.state.source, training: now.training?.id ?? null, version: now.training?.version ?? 0 });

/** Which squares have levels. */
export const leveled = () => now.state.panes.map(hasLevels);
