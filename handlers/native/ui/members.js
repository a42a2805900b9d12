// The list of members, and what can be done to one.
import { link, param, remember } from "./address.js";
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { button, facts, filters, h, heading, labels, mark, moment, muted, none, show as put, toast } from "./dom.js";
import { live, offered } from "./live.js";
import { blind } from "./pulse.js";
import { may } from "./session.js";
import { table } from "./table.js";

const base = "/api/v1/cluster/members/";

// Members with what autopilot says about each.
async function load(ask) {
  const [list, pilot] = await Promise.all([ask("/api/v1/cluster/members"), ask("/api/v1/cluster/autopilot")]);
  const by = new Map(pilot.servers.map((s) => [s.nodeId, s]));
  return { pilot, list: list.map((m) => merge(m, by.get(m.nodeId))) };
}

/** A member with autopilot's line about it, without what moves with every probe. */
export const merge = (m, s) => ({
  ...m,
  status: s?.nodeStatus ?? m.status,
  healthy: s?.healthy,
  reason: s?.reason ?? "",
  lag: s?.lag ?? 0,
  stableSince: s?.stableSince,
  pinned: s?.pinned,
  downSince: s?.downSince ?? m.downSince,
  leftAt: s?.leftAt ?? m.leftAt,
});

export const role = (m) => ({ standby: "stand-by" })[m.role] ?? m.role;

/** Whether it is one to look at first. While nobody knows, none is. */
export const unwell = (m) => !blind() && m.status !== "unknown" && !m.healthy;

/** The status, in the words that are used everywhere: alive, down since …, left, unknown. */
export function status(m) {
  if (blind() || m.status === "unknown") return mark("idle", "unknown");
  if (m.status === "down") return mark("bad", m.downSince ? ["down since ", moment(m.downSince)] : "down");
  if (m.status === "left") return mark("warn", m.leftAt ? ["left ", moment(m.leftAt)] : "left");
  return m.healthy === false ? mark("bad", "alive, not healthy") : mark("good", m.status);
}

export function drain(m) {
  if (m.drainState === "draining") return mark("busy", "draining");
  if (m.drainState === "drained") return mark("warn", "drained");
  return mark("good", "active");
}

const who = (m) => `${m.name} (node ${m.nodeId})`;

const zoneCost = (m) => (m.zoneCost ? h("p", null, mark("warn", "It costs a zone:"), ` ${m.zoneCost}.`) : null);

export function drainDialog(m, changed) {
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

export function resumeDialog(m, changed) {
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

export function promoteDialog(m, changed) {
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

export function transferDialog(m, changed) {
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

export function removeDialog(m) {
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

const kinds = {
  all: ["All members", () => true],
  unwell: ["Down or not healthy", (m) => !m.healthy],
  drain: ["Draining or drained", (m) => m.drainState !== "active"],
  voters: ["Voters", (m) => m.role === "voter"],
  raft: ["Raft servers", (m) => m.role !== "member"],
  outside: ["Outside Raft", (m) => m.role === "member"],
};

// The text that a search looks through; it is put together while nothing else is to do, or when somebody searches.
const texts = new WeakMap();
function textOf(m) {
  let t = texts.get(m);
  if (!t) {
    t = [
      m.name,
      m.nodeId,
      m.id,
      m.apiAddress,
      m.raftAddress,
      m.binaryVersion,
      m.zone ?? "",
      ...Object.entries(m.labels ?? {}).map(([k, v]) => `${k}=${v}`),
    ]
      .join("\n")
      .toLowerCase();
    texts.set(m, t);
  }
  return t;
}

function prepare(list, signal) {
  let i = 0;
  const step = (idle) => {
    while (i < list.length && idle.timeRemaining() > 3) textOf(list[i++]);
    if (i < list.length && !signal.aborted) requestIdleCallback(step);
  };
  (window.requestIdleCallback ?? (() => {}))(step);
}

/** What can be done to a member, for the address and for buttons: [name, text, dialog, whether it fits]. */
export const actions = [
  ["drain", "Drain…", drainDialog, (m) => m.drainState === "active", "cluster:manage"],
  ["resume", "Resume…", resumeDialog, (m) => m.drainState !== "active", "cluster:manage"],
  ["promote", "Promote…", promoteDialog, (m) => m.role !== "voter" && m.mode !== "replicate", "cluster:manage"],
  ["transfer", "Make it leader…", transferDialog, (m) => m.role === "voter" && !m.isLeader, "management"],
  ["remove", "Remove…", removeDialog, () => true, "cluster:manage"],
];

/** The section. */
export function show({ root, signal }) {
  const sum = h("div", { class: "sum" });
  const search = h("input", {
    type: "search",
    id: "find",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "Name, number, address, label …",
    value: param("find"),
  });
  const only = h(
    "select",
    { id: "only" },
    Object.entries(kinds).map(([k, [text]]) => Object.assign(h("option", null, text), { value: k })),
  );
  if (kinds[param("only")]) only.value = param("only");
  const found = h("p", { class: "muted", role: "status" });
  let list = [];
  const grid = table({
    caption: "Members",
    key: (m) => m.nodeId,
    empty: "No member fits.",
    kind: "members",
    columns: [
      {
        title: "Member",
        sort: (m) => m.name,
        cell: (m) => [
          h(
            "div",
            { class: "line" },
            h("a", { href: link("members", m.nodeId), class: "name" }, m.name),
            m.isLeader && !blind() && h("span", { class: "tag" }, "leader"),
          ),
          muted(`node ${m.nodeId}`),
        ],
      },
      {
        title: "Status",
        sort: (m) => `${m.healthy ? 1 : 0}${m.status}`,
        cell: (m) => [
          status(m),
          m.cannotStore && mark("bad", "cannot store"),
          m.diskLow && mark("warn", "disk low"),
          h("div", { class: "reason" }, m.reason),
        ],
      },
      {
        title: "Role",
        sort: (m) => m.role,
        cell: (m) => [
          h("div", { class: "short" }, role(m)),
          m.mode === "replicate" && muted("replicate-only"),
          m.zone && muted(`zone ${m.zone}`),
        ],
      },
      { title: "Lag", num: true, sort: (m) => m.lag, cell: (m) => (blind() ? none() : m.lag) },
      { title: "Drain", sort: (m) => m.drainState, cell: drain },
      {
        title: "Address and version",
        sort: (m) => m.apiAddress,
        cell: (m) =>
          h(
            "div",
            { class: "addresses" },
            h("div", null, m.apiAddress.replace("https://", "")),
            muted("raft ", m.raftAddress),
            muted(m.binaryVersion),
          ),
      },
      { title: "Labels", cell: (m) => labels(m.labels) },
      ...(may("cluster:manage")
        ? [
            {
              title: "Action",
              cell: (m) =>
                actions
                  .slice(0, 2)
                  .filter((a) => a[3](m))
                  .map(([, text, dialog]) => button(text, () => dialog(m, part.refresh), "", m.name)),
            },
          ]
        : []),
    ],
  });
  function filter() {
    const text = search.value.trim().toLowerCase(),
      fits = kinds[only.value][1];
    const some = list.filter((m) => fits(m) && (!text || textOf(m).includes(text)));
    const said = some.length === list.length ? `${list.length} members` : `${some.length} of ${list.length} members`;
    if (found.textContent !== said) found.textContent = said;
    grid.update(some);
  }
  const changed = () => {
    remember({ find: search.value.trim(), only: only.value === "all" ? "" : only.value });
    filter();
  };
  search.addEventListener("input", changed);
  only.addEventListener("change", changed);
  const part = live({
    signal,
    load,
    what: "The list of members",
    draw({ pilot, list: now }, body) {
      if (list !== now) prepare(now, signal);
      list = now;
      if (!body.firstChild) {
        body.append(
          sum,
          filters(
            h("div", { class: "field" }, h("label", { for: "find" }, "Find"), search),
            h("div", { class: "field" }, h("label", { for: "only" }, "Show"), only),
          ),
          found,
          grid.el,
        );
        offer(
          Object.fromEntries(
            actions.map(([name, , dialog, fits]) => [
              name,
              (of) => {
                const m = list.find((x) => String(x.nodeId) === of);
                if (m && fits(m)) dialog(m, part.refresh);
              },
            ]),
          ),
        );
      }
      const bad = list.filter(unwell).length,
        draining = list.filter((m) => m.drainState !== "active").length;
      const leader = list.find((m) => m.isLeader);
      put(sum, [pilot.healthy, pilot.failureTolerance, pilot.voters, list.length, bad, draining, leader?.name], () =>
        facts(
          [
            "Voters",
            blind()
              ? mark("idle", "unknown")
              : pilot.healthy
                ? mark("good", "all healthy")
                : mark("bad", "not all healthy"),
          ],
          ["Members", [String(list.length), bad ? muted(` ${bad} down or not healthy`) : ""]],
          ["They vote", String(pilot.voters.length)],
          ["Failures it survives", blind() ? "unknown" : String(pilot.failureTolerance)],
          ["Leader", leader && !blind() ? h("a", { href: link("members", leader.nodeId) }, leader.name) : none()],
          draining > 0 && ["Draining or drained", String(draining)],
        ),
      );
      filter();
      agree();
    },
  });
  root.append(
    heading("Members", offered("cluster:manage", h("a", { class: "button", href: "#/join-tokens" }, "Add a machine"))),
    part.el,
  );
}
