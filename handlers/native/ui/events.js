// The live stream of events.
import { param, remember } from "./address.js";
import { APIError, read, stream } from "./api.js";
import { button, filters, h, heading, sleep } from "./dom.js";
import { columns, key, types } from "./log.js";
import { whenTurned } from "./pulse.js";
import { table } from "./table.js";

const keep = 500; // entries that are shown

/** The section: the latest entries, then new ones. */
export function show({ root, signal }) {
  const grid = table({
    caption: "Events, the newest first",
    kind: "log",
    columns,
    key,
    empty: "Nothing has happened yet.",
  });
  const state = h("p", { class: "note", role: "status" }, "Connecting …");
  const hold = button("Hold", () => {
    held = !held;
    hold.textContent = held ? "Go on" : "Hold";
    hold.setAttribute("aria-pressed", String(held));
    draw();
  });
  const only = h(
    "select",
    { id: "type" },
    Object.assign(h("option", null, "All"), { value: "" }),
    types.map((t) => h("option", { value: t }, t)),
  );
  let list = [],
    held = false,
    last = "",
    due = false;
  if (types.includes(param("type"))) only.value = param("type");
  only.addEventListener("change", () => {
    remember({ type: only.value });
    draw(true);
  });

  function draw(always) {
    if ((held && !always) || due) return;
    due = true;
    requestAnimationFrame(() => {
      // a burst is drawn once
      due = false;
      grid.update(list.filter((e) => !only.value || e.type === only.value));
    });
  }
  function add(e) {
    if (e.type === "dropped") return;
    if (e.id) last = e.id;
    if (!e.data) return;
    const entry = JSON.parse(e.data);
    if (list.some((x) => key(x) === key(entry))) return; // told again after a broken connection
    list = [entry, ...list].slice(0, keep);
    draw();
  }
  const say = (text) => {
    if (state.textContent !== text) state.textContent = text;
  };

  let wake = new AbortController();
  whenTurned(() => wake.abort(), signal);

  async function run() {
    for (let pause = 500; !signal.aborted;) {
      try {
        if (!last) {
          // begin with recent events
          const { data: page } = await read("/api/v1/audit?order=desc&limit=50", signal);
          list = page.entries;
          draw();
          last = list.length ? key(list[0]) : "";
        }
        await stream("/api/v1/events", last, {
          signal,
          on: add,
          heard: () => {
            pause = 500;
            say("Live");
            state.className = "note live-on";
          },
        });
        say("The stream has ended. Connecting again …");
      } catch (e) {
        if (signal.aborted) return;
        state.className = "note";
        if (!(e instanceof APIError)) throw e;
        if (e.missing) {
          say("Events are not available on this member.");
          pause = 15_000;
        } else if (e.status === 403) {
          say(`This token does not allow it: it takes the scope ${e.scope || "cluster:read"}.`);
          pause = 15_000;
        } else if (e.status === 410) {
          say("What happened meanwhile is no longer kept. Beginning again with the latest …");
          last = "";
        } else {
          say(`${e.message}. Connecting again …`);
        }
      }
      await sleep(pause, AbortSignal.any([signal, wake.signal]));
      wake = new AbortController();
      pause = Math.min(2 * pause, 5000);
    }
  }
  root.append(
    heading("Events", hold),
    filters(h("div", { class: "field" }, h("label", { for: "type" }, "Type"), only)),
    state,
    grid.el,
  );
  run();
}
