// The panel's one job under way: a training or a walk.

import { events, pageName, post, remove } from "/assets/lib/api.js";
import { count } from "/assets/lib/numbers.js";

/** runner({ onchange, onwait, onrefused }) -> { kind, follow(kind, request, onevent), stop() }. kind: null where none is under way. */
export function runner({ onchange, onwait, onrefused }) {
  let job = null;

  function stop() {
    if (!job) return;
    const { id, abort } = job;
    job = null;
    abort.abort();
    if (id) remove(`/api/jobs/${id}`).catch(() => {});
    onchange();
  }

  /** Start a job and hand each of its events on; the last one, or null where it did not end well. */
  async function follow(kind, request, onevent) {
    stop();
    const mine = (job = { abort: new AbortController(), id: null, kind });
    onchange();
    try {
      const { id } = await post("/api/jobs", { page: `${pageName()}.${kind}`, kind: `field-${kind}`, request });
      mine.id = id;
      if (job !== mine) {
        remove(`/api/jobs/${id}`).catch(() => {});
        return null;
      }
      for await (const event of events(`/api/jobs/${id}/events`, mine.abort.signal)) {
        if (job !== mine) return null;
        if (event.event === "refused") onrefused(event.error);
        if (event.event === "state" && event.behind) onwait(`Waiting behind ${count(event.behind, "job")}`);
        onevent(event, id);
        if (event.event === "done") return event;
      }
    } catch (error) {
      if (error.name !== "AbortError") onrefused(error.message);
    } finally {
      if (job === mine) job = null;
      onchange();
    }
    return null;
  }

  return {
    follow,
    stop,
    get kind() {
      return job?.kind ?? null;
    },
  };
}
