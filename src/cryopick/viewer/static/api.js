// Everything that crosses the network: the token in a header, answers that are checked, and reasons in words.

const KEY = "cryopick-token";
const given = new URLSearchParams(location.hash.slice(1)).get("t");
if (given) {
  localStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname);
}
const token = localStorage.getItem(KEY) || "";

export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export async function ask(path, { signal, body, priority } = {}) {
  const headers = { Authorization: `Bearer ${token}` };
  const options = { headers, signal, priority, credentials: "omit" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "not connected: the viewer or the tunnel has ended");
  }
  if (response.ok || response.status === 204) return response;
  let text = `${response.status} ${response.statusText}`;
  try {
    const raw = await response.text();
    text = raw.startsWith("{") ? JSON.parse(raw).error || text : raw.trim() || text;
  } catch { /* the status says it */ }
  if (response.status === 401) text = "the viewer was started again, or this is no link of it: open the new link that `cryopick view` printed";
  throw new Problem(response.status, text);
}

export async function json(path, options) {
  const response = await ask(path, options);
  return response.status === 204 ? null : response.json();
}

export async function floats(path, options) {
  const response = await ask(path, options);
  return { values: new Float32Array(await response.arrayBuffer()), headers: response.headers };
}

export async function bitmap(path, options) {
  const response = await ask(path, options);
  const picture = await createImageBitmap(await response.blob());
  return { picture, note: response.headers.get("x-note") };
}
