// Join tokens: credentials of joining machines.
import { link } from "./address.js";
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { actor, button, code, copyable, h, heading, id, labels, mark, muted, none, toast, when, word } from "./dom.js";
import { live, offered } from "./live.js";
import { may } from "./session.js";
import { table } from "./table.js";

const path = "/api/v1/cluster/join-tokens";

export const tokenState = (s) => mark(s === "valid" ? "good" : "idle", s);

/** Parses KEY=VALUE lines; a line without = is a key without a value. */
function pairs(text) {
  const out = {};
  for (const line of text
    .split("\n")
    .map((l) => l.trim())
    .filter(Boolean)) {
    const at = line.indexOf("=");
    out[at < 0 ? line : line.slice(0, at).trim()] = at < 0 ? "" : line.slice(at + 1).trim();
  }
  return out;
}

/** The choices of a lifetime, in seconds. */
export const lifetimes = [
  ["300", "5 minutes"],
  ["1800", "30 minutes"],
  ["14400", "4 hours"],
  ["86400", "1 day"],
  ["604800", "7 days"],
];

const defaults = { ttl: "1800", maxUses: "1", mode: "full" };
const flags = {
  nodeId: "node-id",
  maxUses: "max-uses",
  mode: "mode",
  bindCidr: "cidr",
  bindName: "name-pattern",
  bindKey: "key-hash",
};

function create(changed) {
  ask({
    at: ["create"],
    title: "Create a join token",
    action: "Create",
    fields: [
      { name: "ttl", label: "Usable for", options: lifetimes, value: defaults.ttl },
      { name: "maxUses", label: "How many machines", type: "number", min: 1, max: 1000000, value: 1, required: true },
      {
        name: "mode",
        label: "Mode",
        options: [
          ["full", "full: may vote"],
          ["replicate", "replicate: never votes"],
        ],
        value: defaults.mode,
      },
      {
        name: "nodeId",
        label: "Node number",
        type: "number",
        min: 1,
        max: Number.MAX_SAFE_INTEGER,
        help: "Empty: the next free one.",
      },
      { name: "labels", label: "Labels", type: "lines", placeholder: "zone=a", help: "One KEY=VALUE on each line." },
      { name: "bindCidr", label: "Only from the prefix", placeholder: "10.0.0.0/8" },
      { name: "bindName", label: "Only names like", placeholder: "web-*" },
      {
        name: "bindKey",
        label: "Only the key with this SHA-256",
        help: "64 hexadecimal digits of the machine's public key.",
      },
    ],
    command: (v) =>
      [
        "muster join-token create",
        v.ttl !== defaults.ttl && `--ttl ${v.ttl}s`,
        ...Object.entries(flags).map(([k, flag]) => v[k] && v[k] !== defaults[k] && `--${flag} ${word(v[k])}`),
        ...Object.entries(pairs(v.labels)).map(([k, x]) => `--label ${word(`${k}=${x}`)}`),
      ]
        .filter(Boolean)
        .join(" "),
    run: (v) =>
      call("POST", path, {
        body: Object.fromEntries(
          Object.entries({
            ttlSeconds: Number(v.ttl),
            maxUses: Number(v.maxUses),
            mode: v.mode,
            nodeId: v.nodeId && Number(v.nodeId),
            labels: v.labels && pairs(v.labels),
            bindCidr: v.bindCidr,
            bindName: v.bindName,
            bindKey: v.bindKey,
          }).filter(([, x]) => x !== ""),
        ),
      }),
    done: (t) =>
      h(
        "div",
        null,
        h(
          "p",
          null,
          h("strong", null, "The token is shown this once."),
          " Run this on the new machine; what it needs to trust the cluster is in the token.",
        ),
        copyable(`muster serve --data DIR --join ${t.token}`, "the command for the new machine"),
        h(
          "p",
          { class: "muted" },
          "Add ",
          code("--api HOST:PORT"),
          " and ",
          code("--raft HOST:PORT"),
          " with addresses at which the other members reach it; the defaults are on loopback.",
        ),
        h("p", null, "Usable ", t.maxUses > 1 ? `${t.maxUses} times` : "once", ", expires ", when(t.expiresAt), "."),
      ),
    closed: changed,
  });
}

function revoke(t, changed) {
  ask({
    at: ["revoke", t.id],
    title: "Revoke this join token",
    action: "Revoke",
    danger: true,
    intro: h("p", null, "No further machine can use token ", code(t.id), ". Members that came with it stay."),
    command: () => `muster join-token revoke ${word(t.id)}`,
    run: () => call("DELETE", `${path}/${encodeURIComponent(t.id)}`),
    done: () => {
      toast("The join token is revoked");
      changed();
    },
  });
}

const bindings = (t) =>
  [
    t.nodeId && `node ${t.nodeId}`,
    t.mode === "replicate" && "replicate-only",
    t.bindCidr && `from ${t.bindCidr}`,
    t.bindName && `names ${t.bindName}`,
    t.bindKey && `key ${t.bindKey.slice(0, 8)}…`,
  ].filter(Boolean);

/** The section. */
export function show({ root, signal }) {
  const grid = table({
    caption: "Join tokens",
    key: (t) => t.id,
    empty: "There are no join tokens.",
    columns: [
      {
        title: "Token",
        sort: (t) => t.id,
        cell: (t) => [id(t.id, "the id of the token"), t.format !== "muster" && muted(` ${t.format}`)],
      },
      { title: "State", sort: (t) => t.state, cell: (t) => tokenState(t.state) },
      { title: "Uses", num: true, sort: (t) => t.uses, cell: (t) => `${t.uses} of ${t.maxUses}` },
      {
        title: "Used by",
        cell: (t) =>
          t.usedBy?.length
            ? h(
                "div",
                { class: "line" },
                t.usedBy
                  .slice(0, 5)
                  .map((u) =>
                    h("a", { href: link("members", u.nodeId), title: `from ${u.remote}` }, `node ${u.nodeId}`),
                  ),
                t.usedBy.length > 5 && muted(`and ${t.usedBy.length - 5} more`),
              )
            : none(),
      },
      { title: "Bound to", cell: (t) => (bindings(t).length ? bindings(t).map((b) => h("div", null, b)) : none()) },
      { title: "Labels", cell: (t) => labels(t.labels) },
      {
        title: "Created",
        sort: (t) => t.createdAt,
        cell: (t) => [h("div", null, when(t.createdAt)), muted("by ", actor(t.createdBy))],
      },
      { title: "Expires", sort: (t) => t.expiresAt, cell: (t) => when(t.expiresAt) },
      ...(may("cluster:manage")
        ? [
            {
              title: "Action",
              cell(t) {
                return t.state === "valid" ? button("Revoke…", () => revoke(t, part.refresh), "", t.id) : none();
              },
            },
          ]
        : []),
    ],
  });
  let now = [];
  const again = () => part.refresh();
  offer({
    create: () => create(again),
    revoke(of) {
      const t = now.find((x) => x.id === of && x.state === "valid");
      if (t) revoke(t, again);
    },
  });
  const part = live({
    signal,
    what: "The list of join tokens",
    load: (ask) => ask(path),
    draw(list, body) {
      now = list;
      if (!body.firstChild) body.append(grid.el);
      grid.update(list.toSorted((a, b) => (a.createdAt < b.createdAt ? 1 : -1)));
      agree();
    },
  });
  root.append(
    heading(
      "Join tokens",
      offered(
        "cluster:manage",
        button("Create a join token…", () => create(again), "primary"),
      ),
    ),
    part.el,
  );
}
