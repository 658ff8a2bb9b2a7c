// One job of a panel at a time, from its start to its end, and the button that starts and stops it.

import { events, pageName, post, remove } from "/assets/lib/api.js";
import { h, say } from "/assets/lib/dom.js";
import { count, seconds } from "/assets/lib/numbers.js";

/**
 * runner({ onchange, onwait, onrefused }) -> { kind, start(job, on), follow(id, on), stop() }.
 *
 * kind: of the job under way, or null. job: { kind, request, page }; the server keeps one job under way for each `page`,
 * which is this tab if left out. on: functions by the name of an event (step, progress, cell, done); `made` receives
 * what POST /api/jobs answers. start and follow return the event `done`, or null where the job did not come to its end.
 */
export function runner({ onchange, onwait, onrefused }) {
  let under = null; // { id, kind, abort } of the job under way

  function stop() {
    if (!under) return;
    const { id, abort } = under;
    under = null;
    abort.abort();
    if (id) remove(`/api/jobs/${id}`).catch(() => {});
    onchange();
  }

  async function start({ kind, request, page = pageName() }, on) {
    stop();
    const mine = (under = { id: null, kind, abort: new AbortController() });
    onchange();
    try {
      const made = await post("/api/jobs", { page, kind, request });
      mine.id = made.id;
      if (under !== mine) {
        remove(`/api/jobs/${made.id}`).catch(() => {});
        return null;
      }
      on.made?.(made);
      return await read(made.id, on, () => under === mine, mine.abort.signal);
    } catch (error) {
      if (error.name !== "AbortError") onrefused(error.message);
      return null;
    } finally {
      if (under === mine) {
        under = null;
        onchange();
      }
    }
  }

  /** The events of a job, each to its function. */
  async function read(id, on, current, signal) {
    for await (const event of events(`/api/jobs/${id}/events`, signal)) {
      if (!current()) return null;
      if (event.event === "state" && event.state === "queued" && event.behind) onwait(`waits for ${count(event.behind, "other job")}`);
      if (event.event === "refused") onrefused(event.error);
      await on[event.event]?.(event);
      if (event.event === "done") return event;
    }
    return null;
  }

  return {
    start,
    stop,
    /** The events of a job that has ended, while current() is true. */
    follow: (id, on, current) => read(id, on, current),
    get kind() {
      return under?.kind ?? null;
    },
  };
}

/**
 * launcher({ onrun, onstopped }) -> { element, busy, start(job, on), … }: the button Run, which is Stop while a job is under
 * way, with what the job costs, the sentence that refuses it, and what screen readers say at its end.
 *
 * onstopped(): after a job was stopped, by the user or by the next job of this tab.
 */
export function launcher({ onrun, onstopped }) {
  const button = h("button", { type: "button", class: "run", disabled: true, onclick: () => (jobs.kind ? halt() : onrun()) }, "Run");
  const cost = h("span", { class: "cost" });
  const refusal = h("p", { class: "refusal", hidden: true });
  const caution = h("p", { class: "soft caution", hidden: true });
  const ended = h("p", { class: "unseen", role: "status" });
  const jobs = runner({ onchange: face, onwait: (text) => say(cost, text), onrefused: refuse });
  let possible = false;
  let text = ""; // what stands beside the button while no job is under way

  function face() {
    button.disabled = !jobs.kind && !possible;
    say(button, jobs.kind ? "Stop" : "Run");
    button.classList.toggle("stop", Boolean(jobs.kind));
    if (!jobs.kind) say(cost, text);
  }

  function refuse(sentence) {
    refusal.hidden = !sentence;
    say(refusal, sentence ?? "");
  }

  function halt() {
    jobs.stop();
    onstopped();
  }

  return {
    element: h("div", { class: "launch" }, button, cost, refusal, caution, ended),
    refuse,
    get busy() {
      return Boolean(jobs.kind);
    },
    /** Whether Run can be pressed, and what stands beside it until then. */
    offer(can, beside) {
      possible = can;
      text = beside;
      face();
    },
    caution(sentence) {
      caution.hidden = !sentence;
      say(caution, sentence ?? "");
    },
    /** What stands beside the button while a job is under way. */
    progress: (words) => say(cost, words),
    ended: (sentence) => say(ended, sentence),
    follow: jobs.follow,
    stop: halt,
    /** Drop the job under way without a word. */
    drop: jobs.stop,
    /** Start a job and follow it; then what it took stands beside the button. */
    async start(job, on) {
      say(cost, "starting");
      say(ended, "");
      refuse(null);
      const began = performance.now();
      const done = await jobs.start(job, {
        ...on,
        cancelled: onstopped,
        step: on.step && ((event) => {
          const last = on.step(event);
          say(cost, `step ${event.i} of ${last}, ${seconds((performance.now() - began) / 1000)}`);
        }),
      });
      if (done) say(cost, took(done));
      return done;
    },
    took: (done) => say(cost, took(done)),
  };
}

/** What a job took: 40 network calls in 1.2 s. */
export const took = ({ calls, ms }) => `${count(calls, "network call")} in ${seconds(ms / 1000)}`;

/** What a plan costs: 40 network calls × 2 blocks, about 1.2 s. Blocks share no calls. */
export function cost({ calls, blocks, seconds: time }) {
  const made = `${count(calls, "network call")}${blocks > 1 ? ` × ${blocks} blocks` : ""}`;
  return time === null || time === undefined ? made : `${made}, about ${seconds(time)}`;
}
