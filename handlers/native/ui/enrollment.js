// Enrollment tokens and their enrollments.
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { actor, button, code, copyable, h, heading, muted, none, toast, when, word } from "./dom.js";
import { lifetimes, tokenState } from "./jointokens.js";
import { live, offered } from "./live.js";
import { table } from "./table.js";

const path = "/api/v1/cluster/enrollment-tokens",
  enrolledPath = "/api/v1/cluster/enrollments";

function create(changed) {
  ask({
    at: ["create"],
    title: "Create an enrollment token",
    action: "Create",
    fields: [
      { name: "name", label: "Name", help: "What it is called in lists and in the audit log. Empty: one is made." },
      {
        name: "scope",
        label: "For",
        options: [
          ["node", "a node"],
          ["kibana", "Kibana"],
        ],
        value: "node",
      },
      { name: "ttl", label: "Usable for", options: lifetimes, value: "1800" },
      { name: "maxUses", label: "How often", type: "number", min: 1, max: 1000000, value: 1, required: true },
    ],
    command: (v) =>
      [
        "muster enroll-token create",
        v.name && `--name ${word(v.name)}`,
        v.scope !== "node" && `--scope ${v.scope}`,
        v.ttl !== "1800" && `--ttl ${v.ttl}s`,
        v.maxUses !== "1" && `--max-uses ${word(v.maxUses)}`,
      ]
        .filter(Boolean)
        .join(" "),
    run: (v) =>
      call("POST", path, {
        body: { name: v.name || undefined, scope: v.scope, ttlSeconds: Number(v.ttl), maxUses: Number(v.maxUses) },
      }),
    done: (t) =>
      h(
        "div",
        null,
        h("p", null, h("strong", null, "The token is shown this once.")),
        copyable(t.token, "the enrollment token"),
        (t.warnings ?? []).map((w) => h("p", { class: "muted" }, w)),
        h("p", null, "Usable ", t.maxUses > 1 ? `${t.maxUses} times` : "once", ", expires ", when(t.expiresAt), "."),
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
    intro: h("p", null, "The token cannot be used any more."),
    fields: [
      {
        name: "keep",
        type: "checkbox",
        label: "Keep what was enrolled with it",
        help: "Otherwise those enrollments are revoked too.",
      },
    ],
    command: (v) => `muster enroll-token revoke ${word(t.id)}${v.keep ? " --keep-enrollments" : ""}`,
    run: (v) => call("DELETE", `${path}/${encodeURIComponent(t.id)}${v.keep ? "?keepEnrollments=true" : ""}`),
    done: (r) => {
      toast(r.enrollments ? `Revoked, with ${r.enrollments} enrollments` : "The enrollment token is revoked");
      changed();
    },
  });
}

function takeBack(e, changed) {
  ask({
    at: ["take-back", e.id],
    title: "Revoke this enrollment",
    action: "Revoke",
    danger: true,
    intro: h(
      "p",
      null,
      "The certificate or service token that was handed out to ",
      code(e.remote),
      " is not accepted any more.",
    ),
    command: () => `muster enrollment revoke ${word(e.id)}`,
    run: () => call("DELETE", `${enrolledPath}/${encodeURIComponent(e.id)}`),
    done: () => {
      toast("The enrollment is revoked");
      changed();
    },
  });
}

/** The section. */
export function show({ root, signal }) {
  const tokens = table({
    caption: "Enrollment tokens",
    key: (t) => t.id,
    empty: "There are no enrollment tokens.",
    columns: [
      { title: "Name", sort: (t) => t.name, cell: (t) => [h("div", { class: "name" }, t.name), muted(t.id)] },
      { title: "For", sort: (t) => t.scope, cell: (t) => t.scope },
      { title: "State", sort: (t) => t.state, cell: (t) => tokenState(t.state) },
      { title: "Uses", num: true, sort: (t) => t.uses, cell: (t) => `${t.uses} of ${t.maxUses}` },
      {
        title: "Created",
        sort: (t) => t.createdAt,
        cell: (t) => [h("div", null, when(t.createdAt)), muted("by ", actor(t.createdBy))],
      },
      { title: "Expires", sort: (t) => t.expiresAt, cell: (t) => when(t.expiresAt) },
      {
        title: "Action",
        cell: (t) => (t.state === "valid" ? button("Revoke…", () => revoke(t, part.refresh), "", t.name) : none()),
      },
    ],
  });
  let now = [],
    nowDone = [];
  const again = () => part.refresh();
  offer({
    create: () => create(again),
    revoke(of) {
      const t = now.find((x) => x.id === of && x.state === "valid");
      if (t) revoke(t, again);
    },
    "take-back"(of) {
      const e = nowDone.find((x) => x.id === of && !x.revokedAt);
      if (e) takeBack(e, enrolled.refresh);
    },
  });
  const part = live({
    signal,
    every: 4000,
    what: "Enrollment",
    load: (ask) => ask(path),
    draw(list, body) {
      if (!body.firstChild) body.append(tokens.el);
      now = list;
      tokens.update(list.toSorted((a, b) => (a.createdAt < b.createdAt ? 1 : -1)));
      agree();
    },
  });
  const done = table({
    caption: "Enrollments",
    address: "done-",
    key: (e) => e.id,
    empty: "Nothing was enrolled yet.",
    columns: [
      { title: "From", sort: (e) => e.remote, cell: (e) => [h("div", null, e.remote), muted(e.kind)] },
      { title: "State", sort: (e) => e.state, cell: (e) => tokenState(e.state) },
      { title: "By", sort: (e) => e.enrolledBy, cell: (e) => actor(e.enrolledBy) },
      { title: "Certificate", cell: (e) => (e.transportSerial ? code(e.transportSerial) : none()) },
      { title: "Enrolled", sort: (e) => e.enrolledAt, cell: (e) => when(e.enrolledAt) },
      { title: "Expires", sort: (e) => e.expiresAt, cell: (e) => when(e.expiresAt) },
      {
        title: "Action",
        cell: (e) => (e.revokedAt ? none() : button("Revoke…", () => takeBack(e, enrolled.refresh), "", e.remote)),
      },
    ],
  });
  const enrolled = live({
    signal,
    every: 6000,
    what: "The list of enrollments",
    load: (ask) => ask(enrolledPath),
    draw(list, body) {
      if (!body.firstChild) body.append(done.el);
      nowDone = list;
      done.update(list.toSorted((a, b) => (a.enrolledAt < b.enrolledAt ? 1 : -1)));
      agree();
    },
  });
  root.append(
    heading(
      "Enrollment tokens",
      offered(
        "enroll",
        button("Create an enrollment token…", () => create(again), "primary"),
      ),
    ),
    part.el,
    h("h2", null, "Enrolled"),
    enrolled.el,
  );
}
