// The jobs of the Field panel: learn a model of the points, and walk samples in each square.

import { pageName, pixels } from "/assets/lib/api.js";
import { say } from "/assets/lib/dom.js";
import { runner } from "/assets/lib/job.js";
import { seconds } from "/assets/lib/numbers.js";
import { learnedHere, mustLearn, NAMES, now, usable } from "/assets/panels/field/now.js";

/**
 * work({ button, cost, refuse, draw, ended, form }) -> { run(), train(), walked(), stop(), face(), busy, learning }.
 *
 * draw(): the squares. ended(what): a job has ended: "training", or "walk" whose states are in `now`; also
 * called with "restart" where a model begins to be learned. form(): the panel's form.
 */
export function work({ button, cost, refuse, draw, ended, form }) {
  const jobs = runner({ onchange: face, onwait: (text) => say(cost, text), onrefused: refuse });
  const learning = () => jobs.kind === "field-training";

  /** Learn what the squares need, then walk samples in each. */
  async function run() {
    if (!usable()) return refuse("Draw some points first.");
    refuse(null);
    if (mustLearn() && !(await learn())) return;
    await walk();
  }

  async function train() {
    if (jobs.kind) return jobs.stop();
    if (!usable()) return refuse("Draw some points first.");
    refuse(null);
    await learn();
  }

  async function learn() {
    const { source, trains, panes } = now.state;
    const mine = { id: null, source: JSON.stringify(source), trains, version: 0, progress: null, done: false };
    Object.assign(now, { training: mine, differences: panes.map(() => null), walks: null, facts: null, expected: null });
    ended("restart");
    const done = await start("training", { source, trains }, {
      made({ id }) {
        mine.id = id;
      },
      step(event) {
        mine.version = event.i;
        mine.progress = event;
        sayTraining();
        draw();
      },
    });
    mine.done = Boolean(done);
    sayTraining();
    await ended("training");
    return mine.done;
  }

  async function walk() {
    const { state } = now;
    let id = null;
    const done = await start("walk", walked(), {
      made: (job) => { id = job.id; },
      step: ({ pane, i, of }) => say(cost, `${NAMES[pane]}: step ${i.toLocaleString("en")} of ${of.toLocaleString("en")}`),
    });
    if (!done || state !== now.state) return;
    const walks = await Promise.all(done.panes.map(async ({ times, steps }, k) => {
      const { shape, bytes } = await pixels(`/api/jobs/${id}/walk/${k}?what=x`);
      return { count: shape[0], n: shape[1], values: new Float32Array(bytes), times, steps };
    }));
    if (state !== now.state) return;
    Object.assign(now, { walks, facts: done.panes, expected: done.expected });
    ended("walk");
  }

  /** What a walk is asked for with, and the Python that makes the same. */
  function walked() {
    const { source, panes, n, seed } = now.state;
    return { source, training: learnedHere() ? now.training.id : null, panes, n, seed };
  }

  /** Trainings and walks are two pages to the server, so that one does not cancel the other. */
  const start = (what, request, on) => jobs.start({ kind: `field-${what}`, page: `${pageName()}.${what}`, request }, on);

  function sayTraining() {
    if (!form()) return;
    if (!learnedHere() && !learning()) return form().training(`A small network, trained here on ${usable() ? "these points" : "the points that you draw"}: about 15 seconds.`, null, false);
    const { progress, done } = now.training;
    if (!progress) return form().training("Starting…", 0, true);
    const { i, of, ms, differences: by } = progress;
    const loss = Object.values(progress.losses);
    const off = Object.entries(by).map(([name, levels]) => Object.entries(levels).map(([t, value]) => `${t === "0" ? name.replace("-vr", "") : `t = ${t}`}: ${(100 * value).toFixed(1)} %`).join(", ")).filter(Boolean);
    const parts = [`Step ${i.toLocaleString("en")} of ${of.toLocaleString("en")}, ${seconds(ms / 1000)}.`];
    if (loss.length === 1) parts.push(`Loss ${loss[0].toFixed(3)}.`);
    if (off.length) parts.push(`Difference from the exact score: ${off.join(", ")}.`);
    form().training(parts.join(" "), done ? 1 : i / of, learning());
  }

  function face() {
    if (!now.state || !form()) return;
    sayTraining();
    say(button, jobs.kind ? "Stop" : "Run");
    button.classList.toggle("stop", Boolean(jobs.kind));
    if (jobs.kind) return say(cost, learning() ? "Training" : "Sampling");
    say(cost, mustLearn() ? "Trains first, then samples" : `${now.state.n.toLocaleString("en")} samples in each square`);
  }

  return {
    run,
    train,
    walked,
    stop: jobs.stop,
    face,
    learning,
    get busy() {
      return jobs.kind !== null;
    },
  };
}
