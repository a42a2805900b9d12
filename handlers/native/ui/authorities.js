// Certificate authorities, their rotation, and the issued certificates.
import { link } from "./address.js";
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { actor, button, clock, facts, h, heading, id, mark, muted, none, show as put, toast, when } from "./dom.js";
import { live } from "./live.js";
import { may } from "./session.js";
import { table } from "./table.js";

const path = "/api/v1/cluster/ca";
const names = { http: "HTTP CA", transport: "Transport CA", workload: "Workload CA" };

const days = (n) =>
  mark(n < 0 ? "bad" : n < 7 ? "bad" : n < 30 ? "warn" : "good", n < 0 ? "expired" : `${n} days left`);

// The steps of a change, done or planned.
const outcome = (r) =>
  h(
    "div",
    null,
    h("p", null, r.dryRun ? "Nothing was changed. This is what would be done:" : "Under way:"),
    h(
      "ol",
      null,
      (r.steps ?? []).map((s) => h("li", null, s)),
    ),
    (r.warnings ?? []).map((w) => h("p", null, mark("warn", w))),
  );

const flag = { start: "", continue: " --force", drop: " --drop", rollback: " --rollback" };

function change(kind, action, { title, intro, danger, fields = [] }, changed) {
  ask({
    at: [action, kind],
    title,
    danger,
    action: { start: "Rotate", continue: "Go on", drop: "Drop the old CA", rollback: "Roll back" }[action],
    intro: h("p", null, intro),
    fields: [
      ...fields,
      {
        name: "dryRun",
        type: "checkbox",
        label: "Dry run",
        help: "Say what would be done and change nothing.",
        value: action === "start",
      },
    ],
    command: (v) =>
      `muster ca rotate --kind ${kind}${flag[action]}${v.overlap ? ` --overlap ${v.overlap}` : ""}` +
      (v.force ? " --force" : "") +
      (v.dryRun ? " --dry-run" : ""),
    run: (v) =>
      call("POST", `${path}/rotate`, {
        body: {
          kind,
          action,
          dryRun: v.dryRun,
          ...(v.overlap && { overlap: v.overlap }),
          ...((v.force || action === "continue") && { force: true }),
        },
      }),
    done: (r) => {
      if (!r.dryRun) toast(`${names[kind] ?? kind}: the change is under way`);
      return outcome(r);
    },
    closed: changed,
  });
}

const start = (kind, changed) =>
  change(
    kind,
    "start",
    {
      title: `Rotate the ${names[kind] ?? kind}`,
      intro:
        "A new authority becomes trusted everywhere, then every member gets new certificates, then the old one " +
        "is dropped. Members, joiners and peers keep working throughout.",
      fields: [
        {
          name: "overlap",
          label: "The old one stays trusted for",
          options: [
            ["1h", "1 hour"],
            ["24h", "1 day"],
            ["168h", "7 days"],
            ["720h", "30 days"],
          ],
          value: "24h",
        },
      ],
    },
    changed,
  );

const phases = {
  trust: "new authority becomes trusted",
  issue: "new certificates are issued",
  overlap: "both are trusted",
};

function rotation(k, again) {
  const r = k.rotation;
  const act = (action, title, intro, danger, fields) =>
    may("management") &&
    button(
      `${title}…`,
      () => change(k.kind, action, { title: `${title}: ${names[k.kind] ?? k.kind}`, intro, danger, fields }, again),
      danger ? "danger" : "",
    );
  const force = [
    {
      name: "force",
      type: "checkbox",
      label: "Without the members that are waited for",
      help: "They have to join again with --rejoin.",
    },
  ];
  return h(
    "section",
    { class: "panel" },
    h("h3", null, r.rolledBack ? "Roll-back under way" : "Rotation under way"),
    h(
      "ol",
      { class: "phases" },
      Object.entries(phases).map(([p, text]) =>
        h(
          "li",
          { "aria-current": p === r.phase && "step" },
          text,
          p === r.phase && muted(" since ", when(r.phaseSince)),
        ),
      ),
      h("li", null, "the old one is dropped", r.dropAt && muted(" ", when(r.dropAt))),
    ),
    facts(
      ["Generations", `${r.old} → ${r.new}`],
      ["Started", [when(r.startedAt), muted(" by ", actor(r.startedBy))]],
      ["Overlap", r.overlap],
    ),
    r.pending.length > 0 && [
      h("h4", null, "Members that are waited for"),
      h(
        "ul",
        null,
        r.pending.map((p) => h("li", null, h("a", { href: link("members", p.nodeId) }, p.name), ` ${p.reason}`)),
      ),
    ],
    h(
      "div",
      { class: "actions" },
      r.phase !== "overlap" &&
        r.pending.length > 0 &&
        act(
          "continue",
          "Go on without them",
          "The members that have not answered are left behind. They have to join again with --rejoin.",
          true,
        ),
      r.phase === "overlap" &&
        act(
          "drop",
          "Drop the old one now",
          "The old authority is not trusted any more, before the overlap is over.",
          true,
          force,
        ),
      !r.rolledBack && act("rollback", "Roll back", "The old authority issues again and the new one goes."),
    ),
  );
}

// Those in use first, soonest expiry first; retired ones last.
const byState = (list) =>
  list.toSorted((a, b) => (a.state === "retired") - (b.state === "retired") || (a.notAfter < b.notAfter ? -1 : 1));

function authority(k, again) {
  return h(
    "section",
    { class: "authority" },
    h(
      "div",
      { class: "heading" },
      h("h2", null, names[k.kind] ?? k.kind),
      h(
        "div",
        { class: "actions" },
        !k.rotation &&
          (may("management")
            ? button("Rotate…", () => start(k.kind, again))
            : muted("Rotating it takes the scope ", h("code", null, "management"))),
      ),
    ),
    k.rotationAdvised && h("p", null, mark("warn", `A rotation is advised: ${k.rotationAdvised}`)),
    k.rotation && rotation(k, again),
    byState(k.generations).map((g) =>
      facts(
        ["Generation", [String(g.generation), muted(` ${g.state}`)]],
        [
          g.state === "retired" ? "Not used any more; would expire" : "Expires",
          g.state === "retired" ? muted(clock(g.notAfter)) : [days(g.daysLeft), muted(" ", clock(g.notAfter))],
        ],
        ["Subject", g.subject],
        ["Origin", g.origin],
        ["Fingerprint", id(g.fingerprint, "the fingerprint")],
      ),
    ),
  );
}

/** The section. */
export function show({ root, signal }) {
  let now = [];
  offer({
    start(kind) {
      if (may("management") && now.some((k) => k.kind === kind && !k.rotation)) start(kind, () => part.refresh());
    },
  });
  const part = live({
    signal,
    what: "The list of authorities",
    load: (ask) => ask(path),
    pause: (list) => (list.some((k) => k.rotation) ? 1000 : 5000),
    draw(list, body) {
      now = list;
      const soonest = (k) => byState(k.generations)[0]?.notAfter ?? "";
      put(body, list, () =>
        list.toSorted((a, b) => (soonest(a) < soonest(b) ? -1 : 1)).map((k) => authority(k, () => part.refresh())),
      );
      agree();
    },
  });
  const grid = table({
    caption: "Certificates",
    key: (c) => c.serial,
    empty: "There are no certificates.",
    columns: [
      {
        title: "Member",
        sort: (c) => c.node ?? "",
        cell: (c) => (c.nodeId ? h("a", { href: link("members", c.nodeId) }, c.node ?? `node ${c.nodeId}`) : none()),
      },
      { title: "Kind", sort: (c) => c.kind, cell: (c) => c.kind },
      {
        title: "Expires",
        sort: (c) => c.expiresAt,
        cell: (c) => [c.revokedAt ? mark("idle", "revoked") : days(c.daysLeft), muted(clock(c.expiresAt))],
      },
      { title: "Issued", sort: (c) => c.issuedAt, cell: (c) => when(c.issuedAt) },
      { title: "CA generation", num: true, sort: (c) => c.authority ?? 0, cell: (c) => c.authority ?? none() },
      { title: "Serial", cell: (c) => id(c.serial, "the serial number") },
    ],
  });
  const certificates = live({
    signal,
    every: 8000,
    what: "The list of certificates",
    load: (ask) => ask("/api/v1/cluster/certificates?current=true"),
    draw(list, body) {
      if (!body.firstChild) body.append(grid.el);
      grid.update(list.toSorted((a, b) => (a.expiresAt < b.expiresAt ? -1 : 1)));
    },
  });
  root.append(heading("Certificates"), part.el, h("h2", null, "Certificates in use"), certificates.el);
}
