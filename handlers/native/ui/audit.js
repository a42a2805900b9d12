// The audit, with filters in the address.
import { param, remember } from "./address.js";
import { APIError, read } from "./api.js";
import { button, filters, h, heading, span } from "./dom.js";
import { columns, key } from "./log.js";
import { whenTurned } from "./pulse.js";
import { table } from "./table.js";

/** The section. */
export function show({ root, signal }) {
  const grid = table({ caption: "Audit log, the newest first", kind: "log", columns, key, empty: "No entry fits." });
  const state = h("p", { class: "note", role: "status" });
  const input = (id, label, props) => {
    const el = h("input", { id, value: param(id), autocomplete: "off", spellcheck: "false", ...props });
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
  let list = [],
    next = "",
    run = 0;

  async function load(older) {
    const mine = ++run;
    const query = new URLSearchParams({ order: "desc", limit: "100" });
    for (const [name, f] of Object.entries(fields)) {
      const v = f.el.value.trim();
      if (v) query.set(name, f.el.type === "datetime-local" ? new Date(v).toISOString().replace(/\.\d+Z$/, "Z") : v);
    }
    if (older) query.set("after", next);
    remember(Object.fromEntries(Object.entries(fields).map(([name, f]) => [name, f.el.value.trim()])));
    try {
      const { data: page, since } = await read(`/api/v1/audit?${query}`, signal);
      if (mine !== run) return;
      list = older ? [...list, ...page.entries] : page.entries;
      next = page.next ?? "";
      grid.update(list);
      state.textContent =
        since === null
          ? ""
          : "No leader answers. This is what this member knows itself" +
            (since ? `, as it was ${span((Date.now() - since) / 1000)} ago.` : ", and it may be old.");
    } catch (e) {
      if (signal.aborted || mine !== run) return;
      if (!(e instanceof APIError)) throw e;
      state.textContent = e.missing ? "The audit log is not available on this member." : `${e.message}.`;
    }
    more.hidden = !next;
  }
  let timer;
  const form = h("form", null, filters(Object.values(fields).map((f) => f.row)));
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(load, 250);
  });
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    load();
  });
  whenTurned(() => load(), signal);
  root.append(
    heading(
      "Audit",
      button("Look again", () => load()),
    ),
    form,
    state,
    grid.el,
    more,
  );
  load();
}
