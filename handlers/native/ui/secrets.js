// Secrets: sealed values in the database. The list never has values; one is shown on request.
import { call, get } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { button, copyable, h, heading, muted, toast, when, word } from "./dom.js";
import { live } from "./live.js";
import { table } from "./table.js";

const path = "/api/v1/cluster/secrets";
const one = (name) => `${path}/${encodeURIComponent(name)}`;

function put(name, changed) {
  ask({
    at: ["put", name],
    title: name ? `A new version of ${name}` : "Store a secret",
    action: "Store",
    fields: [
      ...(name
        ? []
        : [{ name: "name", label: "Name", required: true, help: "Letters, digits, dots, dashes and underscores." }]),
      {
        name: "value",
        label: "Value",
        type: "lines",
        exact: true,
        required: true,
        help: "At most 64 KiB; it is sealed before it is written.",
      },
    ],
    command: (v) => `muster secret put ${word(name || v.name || "NAME")} < FILE`,
    run: (v) => call("PUT", one(name || v.name), { body: { value: v.value } }),
    done: (s) => {
      toast(`${s.name} is stored as version ${s.version}`);
      changed();
    },
  });
}

function reveal(name) {
  ask({
    at: ["reveal", name],
    title: `Show ${name}`,
    action: "Show it",
    intro: h("p", null, "Whoever sees the screen sees the value. That it was read stands in the audit."),
    command: () => `muster secret get ${word(name)}`,
    run: () => get(one(name)),
    done: (s) =>
      h(
        "div",
        null,
        copyable(s.value, "the value"),
        h("p", { class: "muted" }, `Version ${s.version}`, s.encoding ? `, ${s.encoding}` : ""),
      ),
  });
}

function remove(name, changed) {
  ask({
    at: ["delete", name],
    title: `Delete ${name}`,
    action: "Delete",
    danger: true,
    typed: name,
    intro: h("p", null, "The value and its versions are gone for good."),
    command: () => `muster secret delete ${word(name)}`,
    run: () => call("DELETE", one(name)),
    done: () => {
      toast(`${name} is deleted`);
      changed();
    },
  });
}

/** The section. */
export function show({ root, signal }) {
  let now = [];
  const again = () => part.refresh();
  const grid = table({
    caption: "Secrets",
    key: (s) => s.name,
    empty: "There are no secrets.",
    columns: [
      { title: "Name", sort: (s) => s.name, cell: (s) => h("span", { class: "name" }, s.name) },
      { title: "Version", num: true, sort: (s) => s.version, cell: (s) => s.version },
      { title: "Sealed under generation", num: true, sort: (s) => s.generation, cell: (s) => s.generation },
      {
        title: "Changed",
        sort: (s) => s.updatedAt,
        cell: (s) => [h("div", null, when(s.updatedAt)), muted("made ", when(s.createdAt))],
      },
      {
        title: "Action",
        cell: (s) =>
          h(
            "div",
            { class: "actions" },
            button("Show…", () => reveal(s.name), "", s.name),
            button("Change…", () => put(s.name, again), "", s.name),
            button("Delete…", () => remove(s.name, again), "", s.name),
          ),
      },
    ],
  });
  const known = (f) => (of) => {
    if (now.some((s) => s.name === of)) f(of, again);
  };
  offer({ put: (of) => (of ? known(put)(of) : put("", again)), reveal: known(reveal), delete: known(remove) });
  const part = live({
    signal,
    every: 4000,
    what: "The list of secrets",
    load: (ask) => ask(path),
    draw(list, body) {
      if (!body.firstChild) body.append(grid.el);
      now = list;
      grid.update(list);
      agree();
    },
  });
  root.append(
    heading(
      "Secrets",
      button("Store a secret…", () => put("", again), "primary"),
    ),
    part.el,
  );
}
