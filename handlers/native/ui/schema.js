// Versions and the schema of the database: the progress of an upgrade, and the members it waits for.
import { link } from "./address.js";
import { facts, h, heading, mark, muted, none, show as put } from "./dom.js";
import { live } from "./live.js";
import { blind, pulse } from "./pulse.js";
import { table } from "./table.js";

const states = {
  upgraded: ["good", "upgraded"],
  next: ["warn", "next"],
  waiting: ["idle", "waits"],
  down: ["bad", "down"],
};

/** The section. */
export function show({ root, signal }) {
  const own = h("div"),
    said = h("div");
  const grid = table({
    caption: "Members in the order of restarts",
    key: (m) => m.nodeId,
    empty: "No member is known yet.",
    columns: [
      {
        title: "Member",
        cell: (m) => h("a", { class: "name", href: link("members", m.nodeId) }, m.name || `node ${m.nodeId}`),
      },
      { title: "Version", cell: (m) => [m.version, muted(` schema ${m.maxSchema}`)] },
      {
        title: "Role",
        cell: (m) => [
          m.role || "member",
          m.isLeader && !blind() && h("span", { class: "tag" }, "leader"),
          m.zone && muted(`zone ${m.zone}`),
        ],
      },
      { title: "State", cell: (m) => mark(...(states[m.state] ?? ["idle", m.state])) },
      { title: "Note", cell: (m) => m.note || none() },
    ],
  });
  const upgrade = live({
    signal,
    every: 3000,
    what: "The upgrade",
    load: (ask) => ask("/api/v1/cluster/upgrade"),
    draw(up, body) {
      if (!body.firstChild) body.append(said, grid.el);
      put(said, [up.summary, up.wait, up.target], () => [
        facts(["Version to come to", up.target], ["State", up.done ? mark("good", up.summary) : up.summary]),
        up.wait.length > 0 &&
          h(
            "ul",
            null,
            up.wait.map((why) => h("li", null, muted(`not now: ${why}`))),
          ),
      ]);
      grid.update(up.members);
    },
  });
  const part = live({
    signal,
    every: 5000,
    what: "The schema",
    load: (ask) => ask("/api/v1/cluster/schema"),
    draw(s, body) {
      put(body, s, () => [
        facts(
          ["Schema of the database", String(s.applied)],
          ["Newest that the leader knows", String(s.latest)],
          ["State", s.applied === s.latest ? mark("good", "up to date") : mark("warn", "held back")],
        ),
        s.heldBackBy?.length > 0 &&
          h(
            "ul",
            null,
            s.heldBackBy.map((m) =>
              h(
                "li",
                null,
                h("a", { href: link("members", m.nodeId) }, m.name),
                muted(` ${m.binaryVersion}, ${blind() ? "unknown" : m.status}: ${m.reason}`),
              ),
            ),
          ),
      ]);
    },
  });
  const s = pulse().status;
  if (s)
    own.append(
      facts(
        ["Schema here", String(s.cluster.appliedSchemaVersion)],
        ["Newest that this member knows", String(s.schemaVersion)],
        ["Version of this member", s.version],
      ),
    );
  root.append(
    heading("Upgrade and schema"),
    upgrade.el,
    h("h2", null, "Schema"),
    h("p", { class: "note" }, "The leader applies a newer schema by itself when every live member can work with it."),
    part.el,
    h("h2", null, "This member"),
    own,
  );
}
