// Autopilot: its view of each server with the reason, and its configuration.
import { link } from "./address.js";
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { button, facts, h, heading, mark, muted, none, show as put, toast, when, word } from "./dom.js";
import { live, offered } from "./live.js";
import { merge, role, status } from "./members.js";
import { blind } from "./pulse.js";
import { table } from "./table.js";

const path = "/api/v1/cluster/autopilot/config";
const fields = [
  ["maxVoters", "Voters at most", "3, 5 or 7; those that an operator has promoted do not count."],
  ["standBys", "Stand-bys", "Members that replicate without a vote, ready to replace a voter."],
  ["stabilization", "Stabilization", "How long a member is healthy before it gets a vote, such as 10s."],
  ["lastContactThreshold", "Silence", "After which a server is not healthy, such as 2s."],
  ["maxLagRevisions", "Lag at most", "In revisions, of a healthy replica."],
  ["maxLagTime", "Standstill at most", "Of a replica that has more to replicate, such as 30s."],
  ["redundancyZones", "Redundancy zones", "One voter in each zone is enough, the other members of a zone stand by."],
  [
    "upgradeMigration",
    "Upgrade migration",
    "Votes move to members with a newer version when as many run it as voters run an older one.",
  ],
  ["cleanupDeadMembers", "Remove dead members", "For good, after the time below."],
  ["deadAfter", "Dead after", "A Go duration, such as 24h."],
  ["minQuorum", "Voters that a clean-up leaves", "Healthy ones, at least."],
];

function change(config, changed) {
  const kind = (v) => (typeof v === "boolean" ? "checkbox" : typeof v === "number" ? "number" : "text");
  const of = (v) =>
    Object.fromEntries(
      fields.map(([k]) => [k, typeof config[k] === "number" ? Number(v[k]) : v[k]]).filter(([k, x]) => x !== config[k]),
    );
  ask({
    at: ["configure"],
    title: "Configure autopilot",
    action: "Save",
    fields: fields.map(([name, label, help]) => ({
      name,
      label,
      help,
      type: kind(config[name]),
      value: config[name],
      required: true,
    })),
    command: (v) =>
      ["muster autopilot config", ...Object.entries(of(v)).map(([k, x]) => `${k}=${word(String(x))}`)].join(" "),
    run: (v) => call("PUT", path, { body: of(v) }),
    done: () => {
      toast("Autopilot is configured");
      changed();
    },
  });
}

/** The section. */
export function show({ root, signal }) {
  let config = null;
  const grid = table({
    caption: "What autopilot thinks",
    key: (s) => s.nodeId,
    empty: "There are no members.",
    columns: [
      {
        title: "Member",
        sort: (s) => s.name,
        cell: (s) =>
          h(
            "div",
            { class: "line" },
            h("a", { class: "name", href: link("members", s.nodeId) }, s.name),
            s.isLeader && !blind() && h("span", { class: "tag" }, "leader"),
          ),
      },
      {
        title: "Status",
        sort: (s) => `${s.healthy ? 1 : 0}${s.status}`,
        cell: (s) => [
          status(s),
          s.recovering && !blind() && muted("recovering"),
          s.cannotStore && mark("bad", "cannot store"),
          s.diskLow && mark("warn", "disk low"),
        ],
      },
      {
        title: "Role",
        sort: (s) => s.role ?? "",
        cell: (s) => [role({ role: s.role || "member" }), s.pinned && muted("by an operator")],
      },
      { title: "Electable", cell: (s) => (blind() ? none() : s.electable ? "yes" : "no") },
      {
        title: "Stable since",
        sort: (s) => s.stableSince ?? "",
        cell: (s) => (blind() ? none() : when(s.stableSince)),
      },
      { title: "Why", cell: (s) => s.reason || none() },
    ],
  });
  const zones = table({
    caption: "Zones",
    key: (z) => z.name,
    empty: "No member has a zone.",
    columns: [
      { title: "Zone", sort: (z) => z.name, cell: (z) => z.name || muted("none") },
      {
        title: "Its loss",
        sort: (z) => (z.survivable ? 1 : 0),
        cell: (z) => (z.survivable ? mark("good", "survived") : mark("bad", "stops the cluster")),
      },
      { title: "Voters", num: true, sort: (z) => z.voters, cell: (z) => z.voters },
      { title: "Stand-bys", num: true, sort: (z) => z.standBys, cell: (z) => z.standBys },
      { title: "Members that answer", num: true, sort: (z) => z.alive, cell: (z) => `${z.alive} of ${z.members}` },
      { title: "Why", cell: (z) => z.reason },
    ],
  });
  const spread = h("section", null, h("h2", null, "Zones"), zones.el);
  const sum = h("div");
  const part = live({
    signal,
    what: "Autopilot",
    load: (ask) => ask("/api/v1/cluster/autopilot"),
    draw(pilot, body) {
      if (!body.firstChild) body.append(sum, grid.el, spread);
      put(sum, [pilot.healthy, pilot.failureTolerance, pilot.voters, pilot.spread], () =>
        facts(
          [
            "Voters",
            blind()
              ? mark("idle", "unknown")
              : pilot.healthy
                ? mark("good", "all healthy")
                : mark("bad", "not all healthy"),
          ],
          ["They vote", String(pilot.voters.length)],
          ["Failures it survives", blind() ? "unknown" : String(pilot.failureTolerance)],
          pilot.spread && ["Zones", pilot.spread],
        ),
      );
      spread.hidden = !pilot.zones?.length;
      zones.update(pilot.zones ?? []);
      grid.update(
        pilot.servers.map((s) => ({
          ...merge({}, s),
          nodeId: s.nodeId,
          name: s.name ?? `node ${s.nodeId}`,
          role: s.role,
          isLeader: s.isLeader,
          electable: s.electable,
          recovering: s.recovering,
          cannotStore: s.cannotStore,
          diskLow: s.diskLow,
        })),
      );
    },
  });
  const settings = live({
    signal,
    every: 5000,
    what: "The configuration",
    load: (ask) => ask(path),
    draw(c, body) {
      config = c;
      put(body, c, () =>
        facts(...fields.map(([k, label]) => [label, typeof c[k] === "boolean" ? (c[k] ? "yes" : "no") : String(c[k])])),
      );
      agree();
    },
  });
  const open = () => {
    if (config) change(config, settings.refresh);
  };
  offer({ configure: open });
  root.append(
    heading("Autopilot"),
    part.el,
    h(
      "div",
      { class: "heading" },
      h("h2", null, "Configuration"),
      h("div", { class: "actions" }, offered("cluster:manage", button("Configure…", open))),
    ),
    settings.el,
  );
}
