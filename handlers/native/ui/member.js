// One member: everything that is known about it, its leases, and how far a drain is.
import { get } from "./api.js";
import { button, code, facts, h, heading, labels, mark, muted, none, show, when } from "./dom.js";
import { live } from "./live.js";
import { drain, drainDialog, health, merge, promoteDialog, removeDialog, resumeDialog, role, transferDialog } from "./members.js";
import { table } from "./table.js";

function progress(m, leases) {
  const hooks = m.hooks ?? [];
  if (m.drainState === "active" && !hooks.length) return null;
  const title = { draining: "Drain under way", drained: "Drained" }[m.drainState] ?? "After the last resume";
  return h("section", { class: "panel", "aria-labelledby": "progress" },
    h("h2", { id: "progress" }, title),
    facts(
      ["State", drain(m)],
      m.drainDeadline && ["Deadline", when(m.drainDeadline)],
      m.drainState !== "active" && ["Leases left", h("strong", { class: "count" }, String(leases.length))],
      m.drainUpdatedAt && ["Since", when(m.drainUpdatedAt)]),
    hooks.length > 0 && h("ul", { class: "hooks" }, hooks.map((k) => h("li", null, mark(k.ok ? "good" : "bad", `${k.name} ${k.ok ? "done" : "failed"}`),
      muted(` ${k.millis} ms`), k.message && h("pre", null, k.message)))));
}

/** The section of one member. */
export function member({ root, signal, id }) {
  const path = `/api/v1/cluster/members/${encodeURIComponent(id)}`;
  const said = h("p", { class: "hidden", role: "status" }); // for screen readers, without the times that go on by themselves
  const head = h("div"), state = h("div"), about = h("div");
  const leaseTable = table({
    caption: "Leases", key: (l) => l.id, empty: "Nothing runs on this member: it has no leases.",
    columns: [
      { title: "Lease", sort: (l) => l.id, cell: (l) => h("span", { class: "name" }, l.id) },
      { title: "Kind", sort: (l) => l.kind ?? "", cell: (l) => l.kind ?? none() },
      { title: "Granted", sort: (l) => l.createdAt, cell: (l) => when(l.createdAt) },
      { title: "Expires", sort: (l) => l.expiresAt, cell: (l) => when(l.expiresAt) },
    ],
  });
  const part = live({
    signal, what: "This member",
    async load(signal) {
      const [m, pilot, leases] = await Promise.all([get(path, signal), get("/api/v1/cluster/autopilot", signal), get(`/api/v1/cluster/leases?nodeId=${encodeURIComponent(id)}`, signal)]);
      return { m: merge(m, pilot.servers.find((s) => s.nodeId === m.nodeId)), leases };
    },
    pause: ({ m }) => (m.drainState === "draining" ? 700 : 2500),
    draw({ m, leases }, body) {
      if (!body.firstChild) body.append(said, head, state, about, h("section", null, h("h2", null, "Leases"), leaseTable.el));
      if (m.drainState !== "active" || said.textContent) {
        const text = `${m.name} is ${m.drainState}${m.drainState === "draining" ? `, ${leases.length} leases left` : ""}`;
        if (said.textContent !== text) said.textContent = text;
      }
      const again = () => part.refresh();
      show(head, m, () => heading([m.name, m.isLeader && h("span", { class: "tag" }, "leader")],
        m.drainState === "active" ? button("Drain…", () => drainDialog(m, again)) : button("Resume…", () => resumeDialog(m, again)),
        m.role !== "voter" && m.mode !== "replicate" && button("Promote…", () => promoteDialog(m, again)),
        m.role === "voter" && !m.isLeader && button("Make it leader…", () => transferDialog(m, again)),
        button("Remove…", () => removeDialog(m), "danger")));
      show(state, [m.drainState, m.drainDeadline, m.drainUpdatedAt, m.hooks, leases.length], () => progress(m, leases));
      show(about, m, () => facts(
        ["Health", health(m)], ["Autopilot says", m.reason || none()],
        ["Stable since", when(m.stableSince)], !m.healthy && ["Last contact", when(m.lastContact)],
        ["Role", [role(m), m.pinned ? muted(" promoted by an operator") : ""]], ["Suffrage", m.suffrage], ["Mode", m.mode],
        ["Lag", `${m.lag} revisions`], ["Drain", drain(m)], m.cannotStore && ["Storing", [mark("bad", "cannot store"), muted(` ${m.cannotStore}`)]], m.diskLow && ["Disk", mark("warn", "low")],
        ["Node", String(m.nodeId)], ["Id", h("code", { class: "long" }, m.id)], ["Version", m.binaryVersion],
        ["API", code(m.apiAddress)], ["Raft", code(m.raftAddress)], ["Overlay", [m.overlayIp || "–", m.sliceCidr && muted(` ${m.sliceCidr}`)]],
        ["Joined", when(m.joinedAt)], ["Labels", labels(m.labels)]));
      leaseTable.update(leases);
    },
  });
  root.append(h("p", { class: "back" }, h("a", { href: "#/members" }, "All members")), part.el);
}
