// Scores and densities over the square at the levels that are looked at: fetched in few requests and kept.

import { numbers } from "/assets/lib/api.js";
import { hasLevels } from "/assets/panels/field/state.js";

const SIDES = { score: 21, density: 72 };
const AT_ONCE = 8; // levels of one request
const AHEAD = Array.from({ length: 21 }, (_, i) => 100 - 5 * i); // levels that are fetched before they are looked at
const MOST = 600; // lattices that are kept
const NEAR = 3; // levels, within which a neighbour is drawn while the right one is on its way

/** fields(onready) -> { at(what, pane, t, where), want(what, pane, times, where), has(what, pane, t, where) }. where: { source, training, version }. */
export function fields(onready) {
  const kept = new Map();
  const waiting = new Set();

  function key(what, pane, { source, training, version }) {
    const own = what === "density" ? [hasLevels(pane)] : pane.model.startsWith("exact") ? [pane.model] : [pane.model, training, version];
    return JSON.stringify([what, source, ...own, pane.guidance, pane.guidance === null ? null : pane.label]);
  }

  async function want(what, pane, times, where) {
    const name = key(what, pane, where);
    const missing = [...new Set(times)].filter((t) => !kept.has(`${name}@${t}`) && !waiting.has(`${name}@${t}`)).slice(0, AT_ONCE);
    if (!missing.length) return null;
    for (const t of missing) waiting.add(`${name}@${t}`);
    try {
      const side = SIDES[what];
      const { data } = await numbers(`/api/field/${what}`, { source: where.source, training: where.training, pane, times: missing, side });
      const size = data.length / missing.length;
      missing.forEach((t, i) => kept.set(`${name}@${t}`, { side, values: data.subarray(i * size, (i + 1) * size) }));
      while (kept.size > MOST) kept.delete(kept.keys().next().value);
      onready();
      return null;
    } catch (error) {
      return error.message;
    } finally {
      for (const t of missing) waiting.delete(`${name}@${t}`);
    }
  }

  function at(what, pane, t, where) {
    const name = key(what, pane, where);
    for (let off = 0; off <= NEAR; off++) {
      for (const near of [t - off, t + off]) if (kept.has(`${name}@${near}`)) return kept.get(`${name}@${near}`);
    }
    return null;
  }

  return { at, want, has: (what, pane, t, where) => kept.has(`${key(what, pane, where)}@${t}`) };
}

/**
 * ahead(lattices, wanted, refuse) -> a function to call whenever something is drawn. One request at a time: first what is
 * looked at, then, where `later` is true, what may be looked at next.
 *
 * wanted(): { now: [[what, pane, t]], next: [[what, pane]], where, later }.
 */
export function ahead(lattices, wanted, refuse) {
  let busy = false;
  let again = false;

  /** Whether something was fetched. */
  async function once() {
    const { now, next, where, later } = wanted();
    for (const [what, pane, t] of now) {
      const refused = await lattices.want(what, pane, [t], where);
      if (refused) {
        refuse(refused);
        return false;
      }
    }
    for (const [what, pane] of later ? next : []) {
      const missing = AHEAD.filter((t) => !lattices.has(what, pane, t, where));
      if (missing.length) return !(await lattices.want(what, pane, missing, where));
    }
    return false;
  }

  return async function fetch() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    await new Promise(requestAnimationFrame);
    try {
      again = (await once()) || again;
    } finally {
      busy = false;
    }
    if (again) {
      again = false;
      fetch();
    }
  };
}

/** The length of a score whose arrow is half as long as the longest ones: a quarter of the median. */
export function scaleOf({ values }) {
  const sizes = [];
  for (let i = 0; i < values.length; i += 2) sizes.push(Math.hypot(values[i], values[i + 1]));
  return Math.max(sizes.sort((a, b) => a - b)[sizes.length >> 1] / 4, 1e-6);
}
