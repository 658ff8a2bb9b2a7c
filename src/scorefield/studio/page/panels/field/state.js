// The state of the Field panel as the address's parameters, and what requests are made of it.

const LETTERS = ["a", "b", "c", "d"];

/** A state from an example of the server's. */
export const fromPreset = (preset, seed = 0) => ({
  show: preset.id,
  trains: preset.trains ?? "levels",
  source: { kind: preset.source.kind, name: preset.source.name },
  panes: preset.panes.map((pane) => ({ ...pane })),
  n: preset.n,
  seed,
});

/** The state of an address's parameters; what they leave out is that of the first example. */
export function fromParams(params, offers) {
  const preset = offers.presets.find(({ id }) => id === params.show) ?? (params.source ? null : offers.presets[0]);
  if (preset) return fromPreset(preset, Number(params.seed ?? 0));
  const [kind, name] = params.source.split(":");
  const source = kind === "drawn" ? { kind, points: readPoints(params.points ?? "") } : { kind, name };
  const panes = LETTERS.filter((letter) => params[letter]).map((letter) => ({ ...offers.defaults.pane, ...readPane(params[letter]) }));
  const methods = offers.methods.map((one) => one.name);
  return {
    show: null,
    trains: panes.some(({ model }) => methods.includes(model)) ? "objectives" : "levels",
    source,
    panes: panes.length ? panes : [{ ...offers.defaults.pane }, { ...offers.defaults.pane }],
    n: Number(params.n ?? offers.defaults.n),
    seed: Number(params.seed ?? 0),
  };
}

/** The parameters of a state. */
export function toParams({ show, source, panes, n, seed }, offers) {
  if (show) return { show, seed: seed || null };
  const words = panes.map((pane, k) => [LETTERS[k], JSON.stringify(changed(pane, offers.defaults.pane))]);
  const points = source.points?.map(([x, y]) => `${x},${y}`).join("_");
  return { source: source.kind === "drawn" ? "drawn" : `${source.kind}:${source.name}`, points, ...Object.fromEntries(words), n, seed };
}

function changed(pane, usual) {
  return Object.fromEntries(Object.entries(pane).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(usual[name])));
}

function readPane(text) {
  try {
    const found = JSON.parse(text);
    return typeof found === "object" && found ? found : {};
  } catch {
    return {};
  }
}

const readPoints = (text) => text.split("_").map((pair) => pair.split(",").map(Number)).filter((pair) => pair.length === 2 && pair.every(Number.isFinite));

/** Whether a model has noise levels. */
export const hasLevels = ({ model }) => model === "exact" || model === "learned";

/** Whether a model is learned on the page. */
export const isLearned = ({ model }) => !model.startsWith("exact");
