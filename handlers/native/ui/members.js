// The list of members, and what can be done to one.
import { call, get } from "./api.js";
import { ask } from "./dialog.js";
import { button, facts, h, heading, labels, mark, muted, none, show, toast } from "./dom.js";
import { live } from "./live.js";
import { table } from "./table.js";

const base = "/api/v1/cluster/members/";

// Members with what autopilot says about each.
async function load(signal) {
  const [list, pilot] = await Promise.all([get("/api/v1/cluster/members", signal), get("/api/v1/cluster/autopilot", signal)]);
  const by = new Map(pilot.servers.map((s) => [s.nodeId, s]));
  return { pilot, list: list.map((m) => merge(m, by.get(m.nodeId))) };
}

/** A member with autopilot's line about it. The last contact moves with every probe: it is only kept where it tells something. */
export const merge = (m, s) => ({
  ...m, healthy: s?.healthy, reason: s?.reason ?? "", lag: s?.lag ?? 0, stableSince: s?.stableSince, pinned: s?.pinned,
  lastContact: s?.healthy ? undefined : s?.lastContact,
});

export const role = (m) => ({ standby: "stand-by" }[m.role] ?? m.role);

export function health(m) {
  if (m.healthy) return mark("good", "healthy");
  if (m.healthy === undefined) return mark("idle", m.status);
  return m.status === "left" ? mark("idle", "left") : mark("bad", "unhealthy");
}

export function drain(m) {
  if (m.drainState === "draining") return mark("busy", "draining");
  if (m.drainState === "drained") return mark("warn", "drained");
  return mark("good", "active");
}

const who = (m) => `${m.name} (node ${m.nodeId})`;

export function drainDialog(m, changed) {
  ask({
    title: `Drain ${who(m)}`, action: "Drain",
    intro: h("p", null, "The member gets no new leases. Its drain hooks run, its leases are waited for until the deadline, and leadership goes elsewhere. It stays a member and can be resumed."),
    fields: [{ name: "deadline", label: "Deadline in seconds", type: "number", value: 60, min: 0, max: 3600, required: true, help: "How long its leases may hold it up, 0 to 3600." }],
    command: (v) => `muster member drain ${m.nodeId} --deadline ${v.deadline || 0}s`,
    run: (v) => call("POST", `${base}${m.nodeId}/drain`, { body: { deadlineSeconds: Number(v.deadline) } }),
    done: (r) => {
      toast(`${who(m)} is ${r.drainState}`);
      for (const w of r.warnings ?? []) toast(w);
      location.hash = `#/members/${m.nodeId}`;
      changed();
    },
  });
}

export function resumeDialog(m, changed) {
  ask({
    title: `Resume ${who(m)}`, action: "Resume",
    intro: h("p", null, "A drain that is under way is cancelled. The member's resume hooks run and it takes leases again."),
    command: () => `muster member resume ${m.nodeId}`,
    run: () => call("POST", `${base}${m.nodeId}/resume`),
    done: (r) => {
      toast(`${who(m)} is resumed`);
      for (const w of r.warnings ?? []) toast(w);
      changed();
    },
  });
}

export function promoteDialog(m, changed) {
  ask({
    title: `Promote ${who(m)}`, action: "Promote",
    intro: h("p", null, "The member becomes a voter at once, beyond what autopilot would do, and autopilot does not undo it."),
    command: () => `muster member promote ${m.nodeId}`,
    run: () => call("POST", `${base}${m.nodeId}/promote`),
    done: (r) => { toast(`${who(m)}: ${r.message}`); changed(); },
  });
}

export function transferDialog(m, changed) {
  ask({
    title: `Make ${who(m)} the leader`, action: "Transfer leadership",
    intro: h("p", null, "Leadership moves to this member. Requests that are under way are answered a moment later."),
    command: () => `muster raft transfer ${m.nodeId}`,
    run: () => call("PUT", `/v1/operator/raft/transfer-leadership?id=${encodeURIComponent(m.id)}`),
    done: () => { toast(`${who(m)} leads`); changed(); },
  });
}

export function removeDialog(m) {
  ask({
    title: `Remove ${who(m)}`, action: "Remove for good", danger: true, typed: m.name,
    intro: [h("p", null, "Its identity is revoked, its connections are cut and the keys of the cluster change. It cannot come back as this member: its number is never used again."),
      m.drainState === "drained" ? null : h("p", null, mark("warn", `It is ${m.drainState}, not drained.`), " Drain it first, or force the removal.")],
    fields: [{ name: "force", type: "checkbox", label: "Force", help: "Remove it although it is not drained, or although too few healthy voters would be left. The cluster may lose its quorum." }],
    command: (v) => `muster member remove ${m.nodeId}${v.force ? " --force" : ""}`,
    run: (v) => call("DELETE", `${base}${m.nodeId}${v.force ? "?force=true" : ""}`),
    done: () => {
      toast(`${who(m)} is removed`);
      location.hash = "#/members";
    },
  });
}

const filters = {
  all: ["All members", () => true],
  unwell: ["Not healthy", (m) => !m.healthy],
  drain: ["Draining or drained", (m) => m.drainState !== "active"],
  voters: ["Voters", (m) => m.role === "voter"],
  raft: ["Raft servers", (m) => m.role !== "member"],
  outside: ["Outside Raft", (m) => m.role === "member"],
};

/** The section. */
export function members({ root, signal }) {
  const sum = h("div", { class: "sum" });
  const search = h("input", { type: "search", id: "find", autocomplete: "off", spellcheck: "false", placeholder: "Name, number, address, label …" });
  const only = h("select", { id: "only" }, Object.entries(filters).map(([k, [text]]) => Object.assign(h("option", null, text), { value: k })));
  const found = h("p", { class: "muted", role: "status" });
  let list = [];
  const grid = table({
    caption: "Members", key: (m) => m.nodeId, empty: "No member fits.",
    columns: [
      { title: "Member", sort: (m) => m.name, cell: (m) => [h("div", { class: "line" }, h("a", { href: `#/members/${m.nodeId}`, class: "name" }, m.name), m.isLeader && h("span", { class: "tag" }, "leader")), muted(`node ${m.nodeId}`)] },
      { title: "Health", sort: (m) => (m.healthy ? 1 : 0), cell: (m) => [health(m), m.cannotStore && mark("bad", "cannot store"), m.diskLow && mark("warn", "disk low"), h("div", { class: "reason" }, m.reason)] },
      { title: "Role", sort: (m) => m.role, cell: (m) => [h("div", { class: "short" }, role(m)), m.mode === "replicate" && muted("replicate-only")] },
      { title: "Lag", num: true, sort: (m) => m.lag, cell: (m) => m.lag },
      { title: "Drain", sort: (m) => m.drainState, cell: drain },
      { title: "Address and version", sort: (m) => m.apiAddress, cell: (m) => h("div", { class: "addresses" }, h("div", null, m.apiAddress.replace("https://", "")), muted("raft ", m.raftAddress), muted(m.binaryVersion)) },
      { title: "Labels", cell: (m) => labels(m.labels) },
      { title: "Action", cell: (m) => (m.drainState === "active" ? button("Drain…", () => drainDialog(m, part.refresh), "", m.name) : button("Resume…", () => resumeDialog(m, part.refresh), "", m.name)) },
    ],
  });
  function filter() {
    const text = search.value.trim().toLowerCase(), fits = filters[only.value][1];
    const hit = (m) => [m.name, String(m.nodeId), m.id, m.apiAddress, m.raftAddress, m.binaryVersion, ...Object.entries(m.labels ?? {}).map(([k, v]) => `${k}=${v}`)].some((s) => s.toLowerCase().includes(text));
    const some = list.filter((m) => fits(m) && (!text || hit(m)));
    const said = some.length === list.length ? `${list.length} members` : `${some.length} of ${list.length} members`;
    if (found.textContent !== said) found.textContent = said;
    grid.update(some);
  }
  search.addEventListener("input", filter);
  only.addEventListener("change", filter);
  const part = live({
    signal, load, what: "The list of members",
    draw({ pilot, list: now }, body) {
      list = now;
      if (!body.firstChild) {
        body.append(sum, h("div", { class: "filters", role: "search" },
          h("div", { class: "field" }, h("label", { for: "find" }, "Find"), search),
          h("div", { class: "field" }, h("label", { for: "only" }, "Show"), only), found), grid.el);
      }
      const unwell = list.filter((m) => !m.healthy).length, draining = list.filter((m) => m.drainState !== "active").length;
      const leader = list.find((m) => m.isLeader);
      show(sum, [pilot.healthy, pilot.failureTolerance, pilot.voters, list.length, unwell, draining, leader?.name], () => facts(
        ["Cluster", pilot.healthy ? mark("good", "healthy") : mark("bad", "unhealthy")],
        ["Members", [String(list.length), unwell ? muted(` ${unwell} not healthy`) : ""]],
        ["Voters", String(pilot.voters.length)],
        ["Failures it survives", String(pilot.failureTolerance)],
        ["Leader", leader ? h("a", { href: `#/members/${leader.nodeId}` }, leader.name) : none()],
        draining > 0 && ["Draining or drained", String(draining)]));
      filter();
    },
  });
  root.append(heading("Members", h("a", { class: "button", href: "#/join-tokens" }, "Add a machine")), part.el);
}
