// A part of the page that polls. Without an answer or a leader it keeps the last data, dimmed and with its age; it
// continues as soon as there is a leader.
import { APIError, read } from "./api.js";
import { h, muted, sleep, span } from "./dom.js";
import { leaderless, whenTurned } from "./pulse.js";
import { may } from "./session.js";

const longest = 15_000,
  retry = 1000; // ms

/** The text in place of a view or an action that the token does not allow. */
export const lacking = (scope, what) =>
  h("p", { class: "note lacking" }, `${what} takes a token with the scope `, h("code", null, scope), ".");

/**
 * load(ask, signal) fetches with ask(path), draw(data, body) shows, pause(data) may return the ms until the next load.
 * scope is the required scope. Returns {el, refresh}.
 */
export function live({ load, draw, signal, every = 2500, pause, what = "This", scope }) {
  const note = h("p", { class: "note", hidden: true });
  const body = h("div", { class: "live" });
  const el = h("div", null, note, body);
  let data,
    shown = 0,
    since = null,
    error = null,
    wake = new AbortController(); // shown: when the data came; since: when they were true
  if (scope && !may(scope)) return { el: lacking(scope, what), refresh() {} };

  function say() {
    body.classList.toggle("stale", Boolean(shown && (error || since !== null)));
    let text = "";
    if (error) {
      if (error.missing && !shown) text = `${what} is not available on this member.`;
      else if (error.status === 403)
        text = `This token does not allow it: ${error.scope ? `it takes the scope ${error.scope}` : error.message}.`;
      else text = `${error.message}.`;
    } else if (since !== null) {
      text =
        `${leaderless() ? "There is no leader" : "The leader does not answer"}. This is what this member knows itself` +
        (since ? "." : ", and it may be old.");
    }
    const at = error ? shown : since;
    if (at) text += ` Shown as it was ${span((Date.now() - at) / 1000)} ago.`;
    text = text.replace("..", ".");
    note.hidden = !text;
    if (note.textContent !== text) note.textContent = text;
  }

  async function run() {
    const tick = setInterval(say, 1000);
    signal.addEventListener("abort", () => clearInterval(tick), { once: true });
    whenTurned(() => {
      // the leader has changed: pending requests may hang, and shown data may be wrong
      if (shown) draw(data, body);
      wake.abort();
    }, signal);
    while (!signal.aborted) {
      const begin = performance.now();
      let wait = retry;
      wake = new AbortController();
      const both = AbortSignal.any([signal, wake.signal]);
      try {
        let oldest = null;
        const ask = async (path) => {
          const r = await read(path, both);
          if (r.since !== null) oldest = Math.min(oldest ?? Infinity, r.since);
          return r.data;
        };
        data = await load(ask, both);
        if (signal.aborted) return;
        [shown, since, error] = [Date.now(), oldest, null];
        draw(data, body);
        // poll a large cluster less often
        wait = Math.max(pause?.(data) ?? every, Math.min(10 * (performance.now() - begin), longest));
      } catch (e) {
        if (signal.aborted) return;
        if (wake.signal.aborted) continue;
        error = e instanceof APIError ? e : new APIError(-1, "this part of the page has failed");
        if (!(e instanceof APIError)) console.error(e);
        if (error.missing || error.status === 403) wait = longest;
      }
      say();
      await sleep(wait, both);
      while (document.hidden && !signal.aborted && !wake.signal.aborted) await sleep(500, signal);
    }
  }
  run();
  return { el, refresh: () => wake.abort() };
}

/** An action with a required scope: the given element, or a note that names the missing scope. */
export const offered = (scope, ...actions) =>
  may(scope) ? actions : muted("Changing it takes the scope ", h("code", null, scope));
