// One clock for all squares: its positions are levels of noise, or the states of the longest walk where that stays at a
// level for many updates or has none.

import { time } from "/assets/lib/numbers.js";

/** levels: T. walks: null, or [{ count, times, steps }] with one entry a square; kinds: whether each square has levels. */
export function clock(levels, walks, kinds) {
  const dwells = (walk, k) => !kinds[k] || walk.times.some((t, i) => i && t === walk.times[i - 1]);
  const long = walks?.map((walk, k) => ({ walk, k })).filter(({ walk, k }) => dwells(walk, k)).sort((a, b) => b.walk.count - a.walk.count)[0];
  const updates = (i) => Math.round((i / (long.walk.count - 1)) * long.walk.steps);
  const list = long ? Array.from({ length: long.walk.count }, (_, i) => updates(i)) : Array.from({ length: levels + 1 }, (_, i) => levels - i);
  const last = list.length - 1;

  /** The state of square k at position i. */
  function state(k, i) {
    const walk = walks[k];
    if (long) return Math.round((i / last) * (walk.count - 1));
    return lastAtLeast(walk.times, list[i]);
  }

  /** The level of square k at position i; 0 where it has none. */
  function level(k, i) {
    if (!kinds[k]) return 0;
    return long ? walks[k].times[state(k, i)] : list[i];
  }

  function text(i) {
    if (!long) return `t = ${time(list[i])}`;
    const total = long.walk.steps;
    const update = `update ${list[i].toLocaleString("en")} of ${total.toLocaleString("en")}`;
    const with_levels = kinds.findIndex(Boolean);
    return with_levels < 0 ? update : `${update}, t = ${time(level(with_levels, i))}`;
  }

  return { list, last, long: Boolean(long), state, level, text };
}

/** The last index of descending times whose time is at least t. */
export function lastAtLeast(times, t) {
  let found = 0;
  for (let i = 0; i < times.length && times[i] >= t; i++) found = i;
  return found;
}
