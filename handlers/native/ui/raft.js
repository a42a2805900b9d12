// Raft's own view: its servers, where it does not agree with the members, the schema, and this member's status.
import { get } from "./api.js";
import { code, facts, h, heading, mark, muted, none, show } from "./dom.js";
import { live } from "./live.js";
import { table } from "./table.js";

const configuration = "/v1/operator/raft/configuration";
const bytes = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : `${(n / 1e6).toFixed(0)} MB`);

/** The section. */
export function raft({ root, signal }) {
  const where = h("p", { class: "note", hidden: true });
  const servers = table({
    caption: "Servers of the Raft configuration", key: (s) => s.ID, empty: "There are no servers.",
    columns: [
      { title: "Server", sort: (s) => s.Node, cell: (s) => h("div", { class: "line" }, h("span", { class: "name" }, s.Node), s.Leader && h("span", { class: "tag" }, "leader")) },
      { title: "Votes", sort: (s) => String(s.Voter), cell: (s) => (s.Voter ? "yes" : "no") },
      { title: "Address", cell: (s) => code(s.Address || "–") },
      { title: "Protocol", cell: (s) => s.RaftProtocol },
      { title: "Id", cell: (s) => code(s.ID) },
    ],
  });
  const peers = live({
    signal, what: "The Raft configuration",
    async load(signal) {
      try {
        return { ...await get(configuration, signal), stale: false };
      } catch (e) { // without a leader this member tells what it knows itself
        if (signal.aborted || e.lost || e.status < 500) throw e;
        return { ...await get(`${configuration}?stale`, signal), stale: true };
      }
    },
    draw(c, body) {
      if (!body.firstChild) body.append(where, servers.el);
      where.hidden = !c.stale;
      where.textContent = c.stale ? "There is no leader. This is what this member knows itself, and it may be old." : "";
      servers.update(c.Servers);
    },
  });
  const diff = live({
    signal, every: 5000, what: "The comparison", load: (signal) => get("/api/v1/cluster/raft/diff", signal),
    draw(list, body) {
      show(body, list, () => (list?.length ? h("ul", null, list.map((d) => h("li", null, mark("warn", `node ${d.nodeId}: Raft has ${d.have || "nothing"}, the members table wants ${d.want || "nothing"}`)))) :
        h("p", null, mark("good", "Raft agrees with the members table."))));
    },
  });
  const schema = live({
    signal, every: 5000, what: "The schema", load: (signal) => get("/api/v1/cluster/schema", signal),
    draw(s, body) {
      show(body, s, () => [facts(["Schema of the database", String(s.applied)], ["Newest that this leader knows", String(s.latest)],
        ["State", s.applied === s.latest ? mark("good", "up to date") : mark("warn", "held back")]),
      s.heldBackBy?.length > 0 && h("ul", null, s.heldBackBy.map((m) => h("li", null, h("a", { href: `#/members/${m.nodeId}` }, m.name), muted(` ${m.binaryVersion}, ${m.status}: ${m.reason}`))))]);
    },
  });
  const self = live({
    signal, every: 3000, what: "The status", load: (signal) => get("/api/v1/status", signal),
    draw(s, body) {
      show(body, { ...s, revision: 0, cluster: { ...s.cluster, appliedIndex: 0 }, shown: s.revision }, () => facts(
        ["Name", s.name], ["Node", String(s.cluster.nodeId)], ["Role", s.cluster.role.toLowerCase()],
        ["Leader", s.cluster.leaderNodeId ? h("a", { href: `#/members/${s.cluster.leaderNodeId}` }, `node ${s.cluster.leaderNodeId}`) : mark("bad", "none")],
        ["Revision", String(s.revision)], ["Version", [s.version, muted(` ${s.commit}`)]], ["Cluster", s.cluster.clusterId ? code(s.cluster.clusterId) : none()],
        s.storing && ["Storing", s.storing.ok ? [mark("good", "yes"), muted(` a write takes ${s.storing.writeMs} ms`)] : [mark("bad", "no"), muted(` ${s.storing.fault}`)]],
        s.disk && ["Disk", [s.disk.low ? mark("bad", "low") : mark("good", "enough"), muted(` ${bytes(s.disk.freeBytes)} free of ${bytes(s.disk.totalBytes)}`)]]));
    },
  });
  root.append(heading("Raft"), peers.el, h("h2", null, "Agreement with the members"), diff.el, h("h2", null, "Schema"), schema.el, h("h2", null, "This member"), self.el);
}
