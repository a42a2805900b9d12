// The actions on a member: the dialogs, with the equivalent command lines.
import { link } from "./address.js";
import { call } from "./api.js";
import { ask } from "./dialog.js";
import { h, mark, toast } from "./dom.js";

const base = "/api/v1/cluster/members/";
const who = (m) => `${m.name} (node ${m.nodeId})`;

const zoneCost = (m) => (m.zoneCost ? h("p", null, mark("warn", "It costs a zone:"), ` ${m.zoneCost}.`) : null);

function drainDialog(m, changed) {
  ask({
    at: ["drain", m.nodeId],
    title: `Drain ${who(m)}`,
    action: "Drain",
    intro: [
      h(
        "p",
        null,
        "The member gets no new leases. Its drain hooks run, its leases are waited for until the deadline, and " +
          "leadership goes elsewhere. It stays a member and can be resumed.",
      ),
      zoneCost(m),
    ],
    fields: [
      {
        name: "deadline",
        label: "Deadline in seconds",
        type: "number",
        value: 60,
        min: 0,
        max: 3600,
        required: true,
        help: "How long its leases may hold it up, 0 to 3600.",
      },
    ],
    command: (v) => `muster member drain ${m.nodeId} --deadline ${v.deadline || 0}s`,
    run: (v) => call("POST", `${base}${m.nodeId}/drain`, { body: { deadlineSeconds: Number(v.deadline) } }),
    done: (r) => {
      toast(`${who(m)} is ${r.drainState}`);
      for (const w of r.warnings ?? []) toast(w);
      changed();
      return link("members", m.nodeId);
    },
  });
}

function resumeDialog(m, changed) {
  ask({
    at: ["resume", m.nodeId],
    title: `Resume ${who(m)}`,
    action: "Resume",
    intro: h(
      "p",
      null,
      "A drain that is under way is cancelled. The member's resume hooks run and it takes leases again.",
    ),
    command: () => `muster member resume ${m.nodeId}`,
    run: () => call("POST", `${base}${m.nodeId}/resume`),
    done: (r) => {
      toast(`${who(m)} is resumed`);
      for (const w of r.warnings ?? []) toast(w);
      changed();
    },
  });
}

function promoteDialog(m, changed) {
  ask({
    at: ["promote", m.nodeId],
    title: `Promote ${who(m)}`,
    action: "Promote",
    intro: h(
      "p",
      null,
      "The member becomes a voter at once, beyond what autopilot would do, and autopilot does not undo it.",
    ),
    command: () => `muster member promote ${m.nodeId}`,
    run: () => call("POST", `${base}${m.nodeId}/promote`),
    done: (r) => {
      toast(`${who(m)}: ${r.message}`);
      changed();
    },
  });
}

function transferDialog(m, changed) {
  ask({
    at: ["transfer", m.nodeId],
    title: `Make ${who(m)} the leader`,
    action: "Transfer leadership",
    intro: h("p", null, "Leadership moves to this member. Requests that are under way are answered a moment later."),
    command: () => `muster raft transfer ${m.nodeId}`,
    run: () => call("PUT", `/v1/operator/raft/transfer-leadership?id=${encodeURIComponent(m.id)}`),
    done: () => {
      toast(`${who(m)} leads`);
      changed();
    },
  });
}

function removeDialog(m) {
  ask({
    at: ["remove", m.nodeId],
    title: `Remove ${who(m)}`,
    action: "Remove for good",
    danger: true,
    typed: m.name,
    intro: [
      h(
        "p",
        null,
        "Its identity is revoked, its connections are cut and the keys of the cluster change. It cannot come " +
          "back as this member: its number is never used again.",
      ),
      m.drainState === "drained"
        ? null
        : h("p", null, mark("warn", `It is ${m.drainState}, not drained.`), " Drain it first, or force the removal."),
      zoneCost(m),
    ],
    fields: [
      {
        name: "force",
        type: "checkbox",
        label: "Force",
        help:
          "Remove it although it is not drained, or although too few healthy voters would be left. The cluster may " +
          "lose its quorum.",
      },
    ],
    command: (v) => `muster member remove ${m.nodeId}${v.force ? " --force" : ""}`,
    run: (v) => call("DELETE", `${base}${m.nodeId}${v.force ? "?force=true" : ""}`),
    done: () => {
      toast(`${who(m)} is removed`);
      return link("members");
    },
  });
}

/** The actions on a member, for the address and for buttons: [name, text, dialog, condition]. */
export const actions = [
  ["drain", "Drain…", drainDialog, (m) => m.drainState === "active", "cluster:manage"],
  ["resume", "Resume…", resumeDialog, (m) => m.drainState !== "active", "cluster:manage"],
  ["promote", "Promote…", promoteDialog, (m) => m.role !== "voter" && m.mode !== "replicate", "cluster:manage"],
  ["transfer", "Make it leader…", transferDialog, (m) => m.role === "voter" && !m.isLeader, "management"],
  ["remove", "Remove…", removeDialog, () => true, "cluster:manage"],
];
