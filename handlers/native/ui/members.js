// The list of members, with their actions.
import { link, param, remember } from "./address.js";
import { agree, offer } from "./dialog.js";
import { button, facts, filters, h, heading, labels, mark, moment, muted, none, show as put, sleep } from "./dom.js";
import { live, offered } from "./live.js";
import { actions } from "./memberactions.js";
import { blind } from "./pulse.js";
import { may } from "./session.js";
import { table } from "./table.js";

// Members with autopilot's view of each.
async function load(ask) {
  const [list, pilot] = await Promise.all([ask("/api/v1/cluster/members"), ask("/api/v1/cluster/autopilot")]);
  const by = new Map(pilot.servers.map((s) => [s.nodeId, s]));
  return { pilot, list: list.map((m) => merge(m, by.get(m.nodeId))) };
}

/** A member with autopilot's view of it, without the values that change with every probe. */
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

/** Whether the member needs attention. While the state is unknown, none does. */
export const unwell = (m) => !blind() && m.status !== "unknown" && !m.healthy;

/** Whether the state is unknown: without a leader, only a member that has left is known to be away. */
export const unknown = (m) => m.status === "unknown" || (blind() && m.status !== "left");

/** The status, in the common words: alive, down since …, left, unknown. */
export function status(m) {
  if (unknown(m)) return mark("idle", "unknown");
  if (m.status === "down") return mark("bad", m.downSince ? ["down since ", moment(m.downSince)] : "down");
  if (m.status === "left") return mark("warn", m.leftAt ? ["left ", moment(m.leftAt)] : "left");
  return m.healthy === false ? mark("bad", "alive, not healthy") : mark("good", m.status);
}

export function drain(m) {
  if (m.drainState === "draining") return mark("busy", "draining");
  if (m.drainState === "drained") return mark("warn", "drained");
  return mark("good", "active");
}

const kinds = {
  all: ["All members", () => true],
  unwell: ["Down or not healthy", (m) => !m.healthy],
  drain: ["Draining or drained", (m) => m.drainState !== "active"],
  voters: ["Voters", (m) => m.role === "voter"],
  raft: ["Raft servers", (m) => m.role !== "member"],
  outside: ["Outside Raft", (m) => m.role === "member"],
};

// The searchable text; it is built in idle time, or at the first search.
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

const longest = 30; // ms, of one piece of work

function prepare(list, signal) {
  let i = 0;
  const step = (idle) => {
    while (i < list.length && idle.timeRemaining() > 3) textOf(list[i++]);
    if (i < list.length && !signal.aborted) requestIdleCallback(step);
  };
  (window.requestIdleCallback ?? (() => {}))(step);
}

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
  let turn = 0;
  async function filter() {
    // in pieces, so that the page stays responsive with many members
    const mine = ++turn,
      all = list,
      some = [],
      text = search.value.trim().toLowerCase(),
      fits = kinds[only.value][1];
    for (let i = 0, begin = performance.now(); i < all.length; i++) {
      if (fits(all[i]) && (!text || textOf(all[i]).includes(text))) some.push(all[i]);
      if (i % 100 !== 99 || performance.now() - begin < longest) continue;
      await sleep(0);
      if (mine !== turn || signal.aborted) return;
      begin = performance.now();
    }
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
