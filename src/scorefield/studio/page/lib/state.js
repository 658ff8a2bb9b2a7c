// The address's fragment is the state of the page: #/PANEL?name=value&…
// A panel reads its part in show(params) and writes it with ctx.keep(params).

/** { token, panel, params } of a fragment. The token comes first, alone or before the state: #token=…&/sample?… */
export function parse(fragment) {
  let rest = fragment.replace(/^#/, "");
  let token = null;
  const found = /^token=([^&/]+)&?/.exec(rest);
  if (found) {
    token = decodeURIComponent(found[1]);
    rest = rest.slice(found[0].length);
  }
  const [path, query = ""] = rest.replace(/^\//, "").split("?");
  return { token, panel: path || null, params: Object.fromEntries(new URLSearchParams(query)) };
}

/** The fragment of a panel's state; values that are null or "" are left out. */
export function format(panel, params = {}) {
  const kept = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(kept).toString().replaceAll("%2C", ",");
  return `#/${panel}${query ? `?${query}` : ""}`;
}
