// What the squares say: their captions, why one is empty, and what is drawn of a particle.

import { count } from "/assets/lib/numbers.js";
import { lastAtLeast } from "/assets/panels/field/clock.js";
import { hasLevels, isLearned } from "/assets/panels/field/state.js";

/** How a square is sampled, and the level of its field. */
export function caption(pane, t) {
  const how = pane.guidance === null ? "" : `guidance ${pane.guidance}, `;
  const steps = count(pane.steps, pane.sampler === "langevin" ? "update" : "step");
  return `${how}${pane.sampler}, ${steps}${hasLevels(pane) ? `, t = ${t}` : ""}`;
}

/** Why a square has no field, or null. what: { points, exact, learned, training }, each true or false. */
export function whyEmpty(pane, { points, exact, learned, training }) {
  if (!points) return "Click or drag to draw points. By keyboard: arrow keys move the cross, Enter draws.";
  if (!exact && !isLearned(pane)) return "The exact score of this toy is not known.";
  if (isLearned(pane) && !learned) return training ? "The first steps…" : "Nothing is learned yet: press Run.";
  return null;
}

/** The path of a particle in square k up to position i of the clock: { points, at }, at = −1 before its start. */
export function particle({ paths, from }, pane, k, i, hands) {
  const path = paths[k];
  if (!path || i < from) return { points: [], at: -1 };
  if (hands.long || !hasLevels(pane)) {
    return { points: path.points, at: Math.round(((i - from) / Math.max(hands.last - from, 1)) * (path.points.length - 1)) };
  }
  return { points: path.points, at: lastAtLeast(path.times, hands.list[i]) };
}

/** What shading and arrows mean. */
export function legend(panes, exact) {
  const shading = exact ? "Shading: the exact ln p, 8 nats deep" : "Shading: ln p, estimated from 600 points by Gaussian kernels";
  const guided = panes.some(({ guidance }) => guidance !== null) ? ", times p(y|x)^s where a square is guided" : "";
  return `${shading}${guided}. Arrows: the score; its length is |s|/(|s| + m), m a quarter of the median in the first square.`;
}
