// Everything that the page asks of the server. Panels call these and write no fetch of their own.
// What goes wrong is a Refused with a sentence for the user.

const TOKEN = "scorefield-token";

/** What the server refused, or that it does not answer. `message` is a sentence for the user. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Keep the token of the printed address for this tab. */
export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

async function ask(method, path, { body, raw, signal } = {}) {
  const headers = { "X-Scorefield-Token": sessionStorage.getItem(TOKEN) ?? "" };
  if (body !== undefined && !raw) headers["Content-Type"] = "application/json";
  if (raw) headers["Content-Type"] = "application/octet-stream";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: raw ?? (body === undefined ? undefined : JSON.stringify(body)), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Start it again with `scorefield studio`, and open the address that it prints.", 0);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Refused(said.error ?? `The server answered ${answer.status} ${answer.statusText}.`, answer.status);
}

export const get = async (path, signal) => (await ask("GET", path, { signal })).json();
export const post = async (path, body, signal) => (await ask("POST", path, { body, signal })).json();
export const send = async (path, file) => (await ask("POST", path, { raw: file })).json();
export const remove = async (path) => ask("DELETE", path);
export const blob = async (path, body) => (await ask(body === undefined ? "GET" : "POST", path, { body })).blob();

/** Raw pixels or points: { shape, bytes }. */
export async function pixels(path, signal) {
  const answer = await ask("GET", path, { signal });
  const shape = answer.headers.get("X-Shape").split(",").map(Number);
  return { shape, bytes: await answer.arrayBuffer() };
}

/** The raw numbers that answer a body: { shape, data: Float32Array }. */
export async function numbers(path, body, signal) {
  const answer = await ask("POST", path, { body, signal });
  return { shape: answer.headers.get("X-Shape").split(",").map(Number), data: new Float32Array(await answer.arrayBuffer()) };
}

/** Each event of a stream of JSON lines, until it ends or `signal` aborts it. */
export async function* events(path, signal) {
  const reader = (await ask("GET", path, { signal })).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}

/** The name of this tab, under which the server keeps its jobs. A reload keeps it. */
export function pageName() {
  const kept = sessionStorage.getItem("scorefield-page");
  if (kept) return kept;
  const made = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem("scorefield-page", made);
  return made;
}

/** Offer a file to the user for saving. */
export function save(content, name) {
  const address = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
