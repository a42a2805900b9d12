// What happens (events, as they come) and what happened (audit).
import { APIError, get, stream } from "./api.js";
import { actor, button, clock, h, heading, mark, muted, none, sleep } from "./dom.js";
import { table } from "./table.js";

const keep = 500; // entries that are shown
const types = ["access", "autopilot", "certificate", "cluster", "key", "leader", "lease", "member", "operation", "peering", "secret", "setting", "token"];

const columns = [
  { title: "Time (UTC)", cell: (e) => clock(e.at) },
  { title: "What", cell: (e) => [h("code", { class: "short" }, e.action), e.outcome !== "ok" && mark(e.outcome === "refused" ? "bad" : "", e.outcome)] },
  { title: "Object", cell: (e) => (e.object ? h("span", { class: "object" }, e.object) : none()) },
  { title: "Detail", cell: (e) => e.detail || none() },
  { title: "Who", cell: (e) => [h("div", null, actor(e.actor)), muted(e.node ? `node ${e.node}` : "", e.remote ? ` from ${e.remote}` : "")] },
  { title: "Revision", num: true, cell: (e) => `${e.revision}.${e.seq}` },
];
const key = (e) => `${e.revision}.${e.seq}`;

/** The section of events: the latest entries, and then whatever comes. */
export function events({ root, signal }) {
  const grid = table({ caption: "Events, the newest first", columns, key, empty: "Nothing has happened yet." });
  grid.el.classList.add("log");
  const state = h("p", { class: "note", role: "status" }, "Connecting …");
  const hold = button("Hold", () => {
    held = !held;
    hold.textContent = held ? "Go on" : "Hold";
    hold.setAttribute("aria-pressed", String(held));
    draw();
  });
  const only = h("select", { id: "type" }, Object.assign(h("option", null, "All"), { value: "" }), types.map((t) => h("option", { value: t }, t)));
  let list = [], held = false, last = "", due = false;
  only.addEventListener("change", () => draw(true));

  function draw(always) {
    if (held && !always || due) return;
    due = true;
    requestAnimationFrame(() => { // a burst is drawn once
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
  const say = (text) => { if (state.textContent !== text) state.textContent = text; };

  async function run() {
    for (let pause = 500; !signal.aborted;) {
      try {
        if (!last) { // begin with what happened a moment ago
          const page = await get("/api/v1/audit?order=desc&limit=50", signal);
          list = page.entries;
          draw();
          last = list.length ? key(list[0]) : "";
        }
        await stream("/api/v1/events", last, { signal, on: add, heard: () => { pause = 500; say("Live"); state.className = "note live-on"; } });
        say("The stream has ended. Connecting again …");
      } catch (e) {
        if (signal.aborted) return;
        state.className = "note";
        if (!(e instanceof APIError)) throw e;
        if (e.missing) {
          say("Events are not available on this member.");
          pause = 15_000;
        } else if (e.status === 403) {
          say(`This token does not allow it: ${e.message}`);
          pause = 15_000;
        } else if (e.status === 410) {
          say("What happened meanwhile is no longer kept. Beginning again with the latest …");
          last = "";
        } else {
          say(`${e.message}. Connecting again …`);
        }
      }
      await sleep(pause, signal);
      pause = Math.min(2 * pause, 15_000);
    }
  }
  root.append(heading("Events", hold), h("div", { class: "filters" }, h("div", { class: "field" }, h("label", { for: "type" }, "Type"), only)), state, grid.el);
  run();
}

/** The section of the audit log, with filters. */
export function audit({ root, signal }) {
  const grid = table({ caption: "Audit log, the newest first", columns, key, empty: "No entry fits." });
  grid.el.classList.add("log");
  const state = h("p", { class: "note", role: "status" });
  const input = (id, label, props) => {
    const el = h("input", { id, autocomplete: "off", spellcheck: "false", ...props });
    return { el, row: h("div", { class: "field" }, h("label", { for: id }, label), el) };
  };
  const fields = {
    actor: input("actor", "Who", { type: "search", placeholder: "admin" }),
    action: input("action", "What begins with", { type: "search", placeholder: "member." }),
    object: input("object", "Object", { type: "search", placeholder: "node/3" }),
    since: input("since", "Since (your time)", { type: "datetime-local" }),
    until: input("until", "Until (your time)", { type: "datetime-local" }),
  };
  const more = button("Older entries", () => load(true));
  more.hidden = true;
  let list = [], next = "", run = 0;

  async function load(older) {
    const mine = ++run;
    const query = new URLSearchParams({ order: "desc", limit: "100" });
    for (const [name, f] of Object.entries(fields)) {
      const v = f.el.value.trim();
      if (v) query.set(name, f.el.type === "datetime-local" ? new Date(v).toISOString().replace(/\.\d+Z$/, "Z") : v);
    }
    if (older) query.set("after", next);
    try {
      let page, stale = false;
      try {
        page = await get(`/api/v1/audit?${query}`, signal);
      } catch (e) { // without a leader this member tells what it knows itself
        if (e.status !== 503) throw e;
        page = await get(`/api/v1/audit?stale&${query}`, signal);
        stale = true;
      }
      if (mine !== run) return;
      list = older ? [...list, ...page.entries] : page.entries;
      next = page.next ?? "";
      grid.update(list);
      state.textContent = stale ? "There is no leader. This is what this member knows itself, and it may be old." : "";
    } catch (e) {
      if (signal.aborted || mine !== run) return;
      if (!(e instanceof APIError)) throw e;
      state.textContent = e.missing ? "The audit log is not available on this member." : `${e.message}.`;
    }
    more.hidden = !next;
  }
  let timer;
  const form = h("form", { class: "filters", role: "search" }, Object.values(fields).map((f) => f.row));
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(load, 250); });
  form.addEventListener("submit", (e) => { e.preventDefault(); load(); });
  root.append(heading("Audit", button("Look again", () => load())), form, state, grid.el, more);
  load();
}
