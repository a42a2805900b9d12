// Raft's own view: its servers with lag and latency, and its differences from the members table.
import { link } from "./address.js";
import { get } from "./api.js";
import { clock, facts, h, heading, id, mark, muted, none, show as put } from "./dom.js";
import { live } from "./live.js";
import { role } from "./members.js";
import { blind } from "./pulse.js";
import { table } from "./table.js";

/** A Go duration, rounded for reading. */
export const brief = (d) => (d ? d.replace(/(\d+\.\d)\d+/, "$1") : "");

const bytes = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : `${(n / 1e6).toFixed(0)} MB`);

// Raft's files on the disk of this member.
const kept = (r) => [
  `${(r.logBytes / 1e6).toFixed(1)} MB of log up to index ${r.logIndex}, ${r.snapshots} snapshots`,
  r.snapshotAt && [", the newest of ", clock(r.snapshotAt)],
];

/** The section. */
export function show({ root, signal }) {
  const servers = table({
    caption: "Servers of the Raft configuration",
    key: (s) => s.nodeId,
    empty: "There are no servers.",
    address: "servers-",
    columns: [
      {
        title: "Server",
        sort: (s) => s.name,
        cell: (s) => [
          h(
            "div",
            { class: "line" },
            h("a", { class: "name", href: link("members", s.nodeId) }, s.name),
            s.isLeader && !blind() && h("span", { class: "tag" }, "leader"),
          ),
          muted(`node ${s.nodeId}`),
        ],
      },
      {
        title: "Role",
        sort: (s) => s.role,
        cell: (s) => [role(s), !blind() && s.electable === false && s.role === "voter" && muted("not electable")],
      },
      { title: "Lag", num: true, sort: (s) => s.lag, cell: (s) => (blind() ? none() : s.lag) },
      { title: "Round trip", num: true, cell: (s) => (blind() || s.isLeader || !s.rtt ? none() : brief(s.rtt)) },
      { title: "Address", sort: (s) => s.raftAddress, cell: (s) => id(s.raftAddress, "the Raft address") },
    ],
  });
  const peers = live({
    signal,
    what: "The Raft configuration",
    load: (ask) => ask("/api/v1/cluster/autopilot"),
    draw(pilot, body) {
      if (!body.firstChild) body.append(servers.el);
      servers.update(pilot.servers.filter((s) => s.role));
    },
  });
  const diff = live({
    signal,
    every: 5000,
    what: "The comparison",
    load: (ask) => ask("/api/v1/cluster/raft/diff"),
    draw(list, body) {
      put(body, list, () =>
        list?.length
          ? h(
              "ul",
              null,
              list.map((d) =>
                h(
                  "li",
                  null,
                  mark(
                    "warn",
                    `node ${d.nodeId}: Raft has ${d.have || "nothing"}, ` +
                      `the members table wants ${d.want || "nothing"}`,
                  ),
                ),
              ),
            )
          : h("p", null, mark(blind() ? "idle" : "good", "Raft agrees with the members table.")),
      );
    },
  });
  const self = live({
    signal,
    every: 2000,
    what: "The status",
    load: (ask, s) => get("/api/v1/status", s),
    draw(s, body) {
      put(body, s, () =>
        facts(
          ["Name", s.name],
          ["Node", String(s.cluster.nodeId)],
          ["Role", s.cluster.role.toLowerCase()],
          [
            "Leader",
            s.cluster.leaderNodeId
              ? h("a", { href: link("members", s.cluster.leaderNodeId) }, `node ${s.cluster.leaderNodeId}`)
              : mark("bad", "none"),
          ],
          s.cluster.term && ["Term", String(s.cluster.term)],
          ["Applied index", String(s.cluster.appliedIndex)],
          s.raft && ["Raft on its disk", kept(s.raft)],
          ["Version", [s.version, muted(` ${s.commit}`)]],
          ["Cluster", id(s.cluster.clusterId, "the id of the cluster")],
          s.storing && [
            "Storing",
            s.storing.ok
              ? [mark("good", "yes"), muted(` a write takes ${s.storing.writeMs} ms`)]
              : [mark("bad", "no"), muted(` ${s.storing.fault}`)],
          ],
          s.disk && [
            "Disk",
            [
              s.disk.low ? mark("bad", "low") : mark("good", "enough"),
              muted(` ${bytes(s.disk.freeBytes)} free of ${bytes(s.disk.totalBytes)}`),
            ],
          ],
        ),
      );
    },
  });
  root.append(
    heading("Raft"),
    peers.el,
    h("h2", null, "This member"),
    self.el,
    h("h2", null, "Agreement with the members"),
    diff.el,
  );
}
