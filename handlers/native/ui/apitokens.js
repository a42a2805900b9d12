// API tokens: who may do what through the API.
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { actor, button, copyable, h, heading, id, mark, muted, none, toast, when, word } from "./dom.js";
import { live } from "./live.js";
import { whoami } from "./session.js";
import { table } from "./table.js";

const path = "/api/v1/api-tokens";
const scopes = [
  ["management", "Everything"],
  ["cluster:read", "See the cluster"],
  ["cluster:manage", "Change members, join tokens and settings"],
  ["peering:read", "See peerings"],
  ["peering:write", "Change peerings"],
  ["enroll", "Enroll other software"],
  ["keys:manage", "Rotate keys, read and write secrets"],
];
const lifetimes = [
  ["", "without end"],
  ["3600", "1 hour"],
  ["86400", "1 day"],
  ["2592000", "30 days"],
  ["31536000", "1 year"],
];

function create(changed) {
  const chosen = (v) => scopes.filter(([s]) => v[s]).map(([s]) => s);
  ask({
    at: ["create"],
    title: "Create an API token",
    action: "Create",
    fields: [
      { name: "name", label: "Name", required: true, help: "For people: in lists and in the audit." },
      { name: "ttl", label: "Usable for", options: lifetimes, value: "2592000" },
      ...scopes.map(([name, label]) => ({
        name,
        label: name,
        type: "checkbox",
        help: label,
        value: name === "cluster:read",
      })),
    ],
    command: (v) =>
      `muster api-token create --name ${word(v.name || "NAME")} --scope ${chosen(v).join(",") || "SCOPE"}` +
      (v.ttl && ` --ttl ${v.ttl}s`),
    run: (v) =>
      call("POST", path, { body: { name: v.name, scopes: chosen(v), ttlSeconds: v.ttl ? Number(v.ttl) : undefined } }),
    done: (t) =>
      h(
        "div",
        null,
        h("p", null, h("strong", null, "The token is shown this once.")),
        copyable(t.token, "the API token"),
        h(
          "p",
          null,
          "It allows ",
          t.scopes.join(", "),
          t.expiresAt ? [" and expires ", when(t.expiresAt), "."] : " and does not expire.",
        ),
      ),
    closed: changed,
  });
}

function revoke(t, changed) {
  ask({
    at: ["revoke", t.id],
    title: `Revoke ${t.name}`,
    action: "Revoke",
    danger: true,
    typed: t.name,
    intro: [
      h("p", null, "Whoever uses it is refused from now on, on every member."),
      t.id === whoami()?.id && h("p", null, mark("warn", "This page is signed in with it.")),
    ],
    command: () => `muster api-token revoke ${word(t.id)}`,
    run: () => call("DELETE", `${path}/${encodeURIComponent(t.id)}`),
    done: () => {
      toast("The API token is revoked");
      changed();
    },
  });
}

/** The section. */
export function show({ root, signal }) {
  let now = [];
  const grid = table({
    caption: "API tokens",
    key: (t) => t.id,
    empty: "There are no API tokens.",
    columns: [
      {
        title: "Name",
        sort: (t) => t.name,
        cell: (t) => [
          h(
            "div",
            { class: "line" },
            h("span", { class: "name" }, t.name),
            t.id === whoami()?.id && h("span", { class: "tag" }, "this page's"),
          ),
          h("div", null, id(t.id, "the id")),
        ],
      },
      { title: "Scopes", sort: (t) => t.scopes.join(), cell: (t) => t.scopes.join(", ") || none() },
      {
        title: "Created",
        sort: (t) => t.createdAt,
        cell: (t) => [h("div", null, when(t.createdAt)), muted("by ", actor(t.createdBy))],
      },
      {
        title: "Expires",
        sort: (t) => t.expiresAt ?? "9",
        cell: (t) =>
          !t.expiresAt
            ? muted("never")
            : new Date(t.expiresAt) < Date.now()
              ? mark("idle", "expired")
              : when(t.expiresAt),
      },
      { title: "Action", cell: (t) => button("Revoke…", () => revoke(t, part.refresh), "", t.name) },
    ],
  });
  const again = () => part.refresh();
  offer({
    create: () => create(again),
    revoke(of) {
      const t = now.find((x) => x.id === of);
      if (t) revoke(t, again);
    },
  });
  const part = live({
    signal,
    every: 4000,
    what: "The list of API tokens",
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
      "API tokens",
      button("Create an API token…", () => create(again), "primary"),
    ),
    part.el,
  );
}
