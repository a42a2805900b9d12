// One member: all its data, its leases, and the progress of a drain.
import { agree, offer } from "./dialog.js";
import { button, facts, h, heading, id as copied, labels, mark, muted, none, show as put, when } from "./dom.js";
import { live, offered } from "./live.js";
import { blind } from "./pulse.js";
import { actions } from "./memberactions.js";
import { drain, merge, role, status } from "./members.js";
import { may } from "./session.js";
import { table } from "./table.js";

function progress(m, leases) {
  const hooks = m.hooks ?? [];
  if (m.drainState === "active" && !hooks.length) return null;
  const title = { draining: "Drain under way", drained: "Drained" }[m.drainState] ?? "After the last resume";
  return h(
    "section",
    { class: "panel", "aria-labelledby": "progress" },
    h("h2", { id: "progress" }, title),
    facts(
      ["State", drain(m)],
      m.drainDeadline && ["Deadline", when(m.drainDeadline)],
      m.drainState !== "active" && ["Leases left", h("strong", { class: "count" }, String(leases.length))],
      m.drainUpdatedAt && ["Since", when(m.drainUpdatedAt)],
    ),
    hooks.length > 0 &&
      h(
        "ul",
        { class: "hooks" },
        hooks.map((k) =>
          h(
            "li",
            null,
            mark(k.ok ? "good" : "bad", `${k.name} ${k.ok ? "done" : "failed"}`),
            muted(` ${k.millis} ms`),
            k.message && h("pre", null, k.message),
          ),
        ),
      ),
  );
}

/** The section of one member. */
export function show({ root, signal, id }) {
  const path = `/api/v1/cluster/members/${encodeURIComponent(id)}`;
  // for screen readers, without running times
  const said = h("p", { class: "hidden", role: "status" });
  const head = h("div"),
    state = h("div"),
    about = h("div");
  const leaseTable = table({
    caption: "Leases",
    key: (l) => l.id,
    empty: "Nothing runs on this member: it has no leases.",
    columns: [
      { title: "Lease", sort: (l) => l.id, cell: (l) => h("span", { class: "name" }, l.id) },
      { title: "Kind", sort: (l) => l.kind ?? "", cell: (l) => l.kind ?? none() },
      { title: "Granted", sort: (l) => l.createdAt, cell: (l) => when(l.createdAt) },
      { title: "Expires", sort: (l) => l.expiresAt, cell: (l) => when(l.expiresAt) },
    ],
  });
  let now = null;
  const again = () => part.refresh();
  offer(
    Object.fromEntries(
      actions.map(([name, , dialog, fits]) => [
        name,
        (of) => {
          if (now && of === String(now.nodeId) && fits(now)) dialog(now, again);
        },
      ]),
    ),
  );
  const part = live({
    signal,
    what: "This member",
    async load(ask) {
      const [m, pilot, leases] = await Promise.all([
        ask(path),
        ask("/api/v1/cluster/autopilot"),
        ask(`/api/v1/cluster/leases?nodeId=${encodeURIComponent(id)}`),
      ]);
      return {
        m: merge(
          m,
          pilot.servers.find((s) => s.nodeId === m.nodeId),
        ),
        leases,
      };
    },
    pause: ({ m }) => (m.drainState === "draining" ? 700 : 2500),
    draw({ m, leases }, body) {
      if (!body.firstChild)
        body.append(said, head, state, about, h("section", null, h("h2", null, "Leases"), leaseTable.el));
      now = m;
      if (m.drainState !== "active" || said.textContent) {
        const more = m.drainState === "draining" ? `, ${leases.length} leases left` : "";
        const text = `${m.name} is ${m.drainState}${more}`;
        if (said.textContent !== text) said.textContent = text;
      }
      put(head, m, () =>
        heading(
          [m.name, m.isLeader && !blind() && h("span", { class: "tag" }, "leader")],
          actions.some((a) => may(a[4]))
            ? actions
                .filter(([, , , fits, scope]) => fits(m) && may(scope))
                .map(([name, text, dialog]) => button(text, () => dialog(m, again), name === "remove" ? "danger" : ""))
            : offered("cluster:manage"),
        ),
      );
      put(state, [m.drainState, m.drainDeadline, m.drainUpdatedAt, m.hooks, leases.length], () => progress(m, leases));
      put(about, m, () =>
        facts(
          ["Status", status(m)],
          ["Autopilot says", m.reason || none()],
          ["Stable since", when(m.stableSince)],
          m.downSince && !blind() && ["Last contact", when(m.downSince)],
          ["Role", [role(m), m.pinned ? muted(" promoted by an operator") : ""]],
          ["Suffrage", m.suffrage],
          ["Mode", m.mode],
          m.zone && ["Zone", [m.zone, m.zoneCost && muted(` if drained or removed, ${m.zoneCost}`)]],
          ["Lag", blind() ? none() : `${m.lag} revisions`],
          ["Drain", drain(m)],
          m.cannotStore && ["Storing", [mark("bad", "cannot store"), muted(` ${m.cannotStore}`)]],
          m.diskLow && ["Disk", mark("warn", "low")],
          ["Node", String(m.nodeId)],
          ["Id", copied(m.id, "the id")],
          ["Version", m.binaryVersion],
          ["API", copied(m.apiAddress, "the API address")],
          ["Raft", copied(m.raftAddress, "the Raft address")],
          m.recipient && ["Recipient", copied(m.recipient, "the age recipient")],
          ["Overlay", [m.overlayIp || "–", m.sliceCidr && muted(` ${m.sliceCidr}`)]],
          ["Joined", when(m.joinedAt)],
          ["Labels", labels(m.labels)],
        ),
      );
      leaseTable.update(leases);
      agree();
    },
  });
  root.append(h("p", { class: "back" }, h("a", { href: "#/members" }, "All members")), part.el);
}
