// A part of the page that is asked for again and again. What was shown last stays, marked with its age, while there is
// no answer; it goes on by itself when there is one.
import { APIError } from "./api.js";
import { h, sleep, span } from "./dom.js";

/**
 * load(signal) fetches, draw(data, body) shows, pause(data) may give the ms until the next time.
 * Returns {el, refresh}.
 */
export function live({ load, draw, signal, every = 2500, pause, what = "This" }) {
  const note = h("p", { class: "note", hidden: true });
  const body = h("div", { class: "live" });
  const el = h("div", null, note, body);
  let last = 0, error = null, wake = new AbortController();

  function say() {
    if (!error) {
      note.hidden = true;
      body.classList.remove("stale");
      return;
    }
    note.hidden = false;
    let text;
    if (error.missing && !last) text = `${what} is not available on this member.`;
    else if (error.status === 403) text = `This token does not allow it: ${error.message}`;
    else text = `${error.message}.`.replace("..", ".");
    if (last) {
      text += ` Shown as it was ${span((Date.now() - last) / 1000)} ago.`;
      body.classList.add("stale");
    }
    if (note.textContent !== text) note.textContent = text;
  }

  async function run() {
    const tick = setInterval(say, 1000);
    signal.addEventListener("abort", () => clearInterval(tick), { once: true });
    while (!signal.aborted) {
      const begin = performance.now();
      let wait = every;
      wake = new AbortController();
      try {
        const data = await load(signal);
        if (signal.aborted) return;
        [last, error] = [Date.now(), null];
        draw(data, body);
        wait = pause?.(data) ?? every;
      } catch (e) {
        if (signal.aborted) return;
        error = e instanceof APIError ? e : new APIError(-1, "this part of the page has failed");
        if (!(e instanceof APIError)) console.error(e);
        if (error.missing || error.status === 403) wait = 15_000;
      }
      say();
      // A large cluster is asked less often: a tenth of the time at most.
      await sleep(Math.max(wait, 10 * (performance.now() - begin)), AbortSignal.any([signal, wake.signal]));
      while (document.hidden && !signal.aborted && !wake.signal.aborted) await sleep(500, signal);
    }
  }
  run();
  return { el, refresh: () => wake.abort() };
}
