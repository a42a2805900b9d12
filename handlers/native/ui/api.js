// The page's client of the API. The token travels only in the Authorization header.
import { doubt, leaderless } from "./pulse.js";
import { token } from "./session.js";

let onRefused = () => {};

/** Calls f when the server no longer accepts the token. */
export function whenRefused(f) {
  onRefused = f;
}

/** An answer that is not a success; status 0 means no answer. */
export class APIError extends Error {
  constructor(status, message, scope = "") {
    super(message);
    this.status = status;
    this.scope = scope; // what it would take, where that is what lacks
  }
  get lost() {
    return this.status === 0;
  }
  /**
   * The endpoint is unknown, as on a member with an older version, or the object at the endpoint does not exist.
   */
  get missing() {
    return this.status === 405 || (this.status === 404 && this.message.includes("nothing at this path"));
  }
}

const patience = { GET: 12_000 }; // ms; a drain or a promotion may take as long as the server allows it

function headers(extra) {
  const h = { ...extra };
  if (token.get()) h.Authorization = "Bearer " + token.get();
  return h;
}

// The server's error text; each API family has its own envelope.
async function failure(response) {
  const text = (await response.text()).trim();
  let message = text;
  try {
    const body = JSON.parse(text);
    message = body.message ?? body.error?.reason ?? body.error ?? text;
  } catch {
    /* plain text */
  }
  return new APIError(
    response.status,
    String(message || `the server answered ${response.status}`),
    response.headers.get("X-Muster-Scope") ?? "",
  );
}

async function ask(path, options, signal, ms) {
  const limit = AbortSignal.timeout(ms);
  try {
    return await fetch(path, {
      ...options,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new APIError(0, limit.aborted ? "no answer in time" : "the member does not answer");
  }
}

// Sends a request and returns a successful answer; throws otherwise.
async function request(method, path, { body, raw, signal, secret, ms } = {}) {
  const h = headers();
  if (secret) h.Authorization = "Bearer " + secret; // a token that is only being tried
  if (body !== undefined) h["Content-Type"] = "application/json";
  if (method === "POST") h["Idempotency-Key"] = crypto.randomUUID(); // the members may repeat it without harm
  const response = await ask(
    path,
    { method, headers: h, body: raw ?? (body === undefined ? undefined : JSON.stringify(body)) },
    signal,
    ms ?? patience[method] ?? 75_000,
  );
  if (!response.ok) {
    const e = await failure(response);
    if (e.status === 401 && !secret) onRefused();
    throw e;
  }
  return response;
}

// The result of the envelope, or the whole answer without an envelope.
async function result(response) {
  const text = await response.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    throw new APIError(response.status, "the answer cannot be read");
  }
  return data !== null && typeof data === "object" && !Array.isArray(data) && "result" in data ? data.result : data;
}

/** Sends a request and returns the result. */
export const call = async (method, path, options) => result(await request(method, path, options));

export const get = (path, signal) => call("GET", path, { signal });

/** Sends or fetches large bodies: returns the response. */
export const large = (method, path, options) => request(method, path, { ...options, ms: 9 * 60_000 });

/**
 * Reads from the leader, or without a leader from this member's replica. Returns {data, since}: since is the time of
 * old data in ms, 0 if that is unknown, and null for current data.
 */
export async function read(path, signal) {
  let failed = null;
  if (!leaderless()) {
    try {
      const data = await get(path, signal);
      doubt(false);
      return { data, since: null };
    } catch (e) {
      if (signal?.aborted || e.status !== 503) throw e;
      failed = e;
      if (/leader/i.test(e.message)) doubt(true);
    }
  }
  let response;
  try {
    response = await request("GET", path + (path.includes("?") ? "&" : "?") + "stale", { signal });
  } catch (e) {
    throw e.status === 503 && failed ? failed : e;
  }
  const ago = response.headers.get("X-Muster-Last-Contact"),
    now = response.headers.get("X-Muster-Known-Leader") === "true";
  return { data: await result(response), since: now && !failed ? null : ago === null ? 0 : Date.now() - Number(ago) };
}

/**
 * Reads server-sent events until the stream ends. EventSource cannot send a token, so this reads the body itself.
 * `on` gets {id, type, data}; heard() is called for everything that arrives, including heartbeats.
 */
export async function stream(path, lastID, { on, heard, signal }) {
  const extra = { Accept: "text/event-stream" };
  if (lastID) extra["Last-Event-ID"] = lastID;
  const quiet = new AbortController();
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => quiet.abort(), 45_000); // a heartbeat comes every 15 s
  };
  alive();
  try {
    const response = await fetch(path, {
      headers: headers(extra),
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.any([signal, quiet.signal]),
    });
    if (!response.ok) {
      const e = await failure(response);
      if (e.status === 401) onRefused();
      throw e;
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    heard();
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      heard();
      const blocks = (rest + value.replaceAll("\r", "")).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = { id: "", type: "message", data: "" };
        for (const line of block.split("\n")) {
          const at = line.indexOf(":");
          if (at < 1) continue; // a comment
          const field = line.slice(0, at),
            text = line.slice(at + 1).replace(/^ /, "");
          if (field === "id") event.id = text;
          else if (field === "event") event.type = text;
          else if (field === "data") event.data += (event.data && "\n") + text;
        }
        on(event);
      }
    }
  } catch (e) {
    if (signal.aborted || e instanceof APIError) throw e;
    throw new APIError(0, "the stream of events has broken off");
  } finally {
    clearTimeout(timer);
  }
}
