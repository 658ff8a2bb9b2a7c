// The state of the Sample panel: what is asked for, as the address's parameters and as a SampleRequest.

/** A state with nothing chosen: every null stands for what the run does by itself. */
export const empty = () => ({
  run: null,
  sampler: null,
  settings: {},
  options: {},
  grid: null,
  steps: null,
  labels: null,
  guidance: null,
  classifier: null,
  n: null,
  seed: 0,
  block: null,
  indices: null,
  near: null, // { sample, weight }: x_T near that of a sample
});

/** A seed by chance. */
export const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000;

const WHOLE = ["run", "steps", "classifier", "n", "seed", "block"];

/** The state of an address's parameters. Settings of the sampler are named set.NAME, those of [sampling] opt.NAME. */
export function fromParams(params) {
  const state = empty();
  for (const name of WHOLE) if (params[name]) state[name] = Number(params[name]);
  for (const name of ["sampler", "grid"]) if (params[name]) state[name] = params[name];
  if (params.guidance) state.guidance = Number(params.guidance);
  for (const name of ["labels", "indices"]) if (params[name]) state[name] = params[name].split(",").map(Number);
  const [sample, weight] = (params.near ?? "").split(",").map(Number);
  if (weight !== undefined) state.near = { sample, weight };
  for (const [name, text] of Object.entries(params)) {
    if (name.startsWith("set.")) state.settings[name.slice(4)] = value(text);
    if (name.startsWith("opt.")) state.options[name.slice(4)] = value(text);
  }
  return state;
}

/** The parameters of a state. */
export function toParams({ settings, options, labels, indices, near, ...plain }) {
  const named = (prefix, table) => Object.fromEntries(Object.entries(table).map(([name, one]) => [`${prefix}.${name}`, typeof one === "string" ? one : JSON.stringify(one)]));
  return { ...plain, labels: labels?.join(",") ?? null, indices: indices?.join(",") ?? null, near: near && `${near.sample},${near.weight}`, ...named("set", settings), ...named("opt", options) };
}

/** The SampleRequest of a state: what was chosen, and nothing else. */
export function toRequest(state) {
  const chosen = Object.entries(state).filter(([, one]) => one !== null);
  const request = Object.fromEntries(chosen);
  for (const table of ["settings", "options"]) if (!Object.keys(state[table]).length) delete request[table];
  return request;
}

/** The state of a request, of a saved picture or an earlier run of the page. */
export const fromRequest = (request) => ({ ...empty(), ...request, settings: { ...request.settings }, options: { ...request.options } });

/** Whether two requests ask for the same, with what each leaves out as in `defaults`. */
export function same(one, other, defaults) {
  const whole = (request) => JSON.stringify({ ...fromRequest(request), n: request.n ?? defaults.n, block: request.block ?? defaults.block, seed: request.seed ?? 0 });
  return whole(one) === whole(other);
}

function value(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
