// The overview for a wall screen: whether the cluster can write, the leader, the tolerated failures, unhealthy members,
// the next expiries, and the last hour.
import { link } from "./address.js";
import { get } from "./api.js";
import { sparkline, strip } from "./chart.js";
import { actor, clock, h, heading, mark, moment, muted, none, short, show as put, span, when } from "./dom.js";
import { expiry } from "./expiry.js";
import { live } from "./live.js";
import { merge, status, unknown, unwell } from "./members.js";
import { blind, leaderless, pulse } from "./pulse.js";

const hour = 3_600_000;
const to = (m) => h("a", { href: link("members", m.nodeId) }, m.name);
const bytes = (n) =>
  n >= 1e12 ? `${(n / 1e12).toFixed(1)} TB` : n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : `${(n / 1e6).toFixed(0)} MB`;
const few = (list, n, make) => [
  list.slice(0, n).map((x, i) => [i > 0 && ", ", make(x)]),
  list.length > n && ` and ${list.length - n} more`,
];

/** The failures that the voters survive, and those that they do not, in sentences. */
export function survives(list) {
  const voters = list.filter((m) => m.role === "voter"),
    up = voters.filter((m) => m.healthy),
    down = voters.filter((m) => !m.healthy);
  const spare = up.length - (Math.floor(voters.length / 2) + 1);
  const lines = [];
  if (down.length)
    lines.push([
      `${down.length === 1 ? "A voter is" : `${down.length} voters are`} down or not healthy already: `,
      ...few(down, 5, to),
      ".",
    ]);
  if (spare >= up.length) lines.push("It survives the loss of every voter but one.");
  else if (spare > 0)
    lines.push([
      `It survives the loss of any ${spare === 1 ? "one voter" : `${spare} voters`}, and not of ${spare + 1} at once.`,
    ]);
  else
    lines.push([
      up.length > 1
        ? "It survives no failure of a voter: the loss of any of "
        : "It survives no failure of its voter: the loss of ",
      ...few(up, 7, to),
      " ends all writing.",
    ]);
  const zones = Map.groupBy(
    up.filter((m) => m.labels?.zone),
    (m) => m.labels.zone,
  );
  const fatal = [...zones].filter(([, list]) => list.length > spare).map(([zone]) => zone);
  if (zones.size && spare > 0)
    lines.push(
      fatal.length
        ? [`It does not survive the loss of zone ${fatal.join(" or ")}.`]
        : "It survives the loss of any one zone.",
    );
  const others = list.length - voters.length;
  if (others > 0)
    lines.push(
      others === 1
        ? "The other member does not vote: losing it costs no majority."
        : `The other ${others} members do not vote: losing them costs no majority.`,
    );
  return lines;
}

function can(list) {
  const leader = list.find((m) => m.isLeader);
  if (pulse().lost) return ["idle", "Unknown: this member does not answer", null];
  if (leaderless()) return ["bad", "The cluster cannot write: there is no leader", null];
  if (blind()) return ["bad", "Perhaps it cannot write: the leader does not answer", leader];
  const up = list.filter((m) => m.role === "voter" && m.healthy).length;
  return up
    ? ["good", "The cluster can write", leader]
    : ["bad", "The cluster can hardly write: no voter is healthy", leader];
}

function headline(list) {
  const [kind, text, leader] = can(list);
  return h(
    "div",
    { class: `headline ${kind}` },
    h("p", { class: "big" }, mark(kind, text)),
    h(
      "p",
      null,
      leader
        ? [to(leader), " leads", leader.stableSince && muted(" healthy since ", moment(leader.stableSince))]
        : muted("Nobody leads, as far as this member knows."),
    ),
    h(
      "ul",
      null,
      (blind() ? ["How many failures it survives is not known now."] : survives(list)).map((l) => h("li", null, l)),
    ),
  );
}

const groups = [
  ["down or not healthy", unwell, "bad", "unwell"],
  ["draining or drained", (m) => m.drainState !== "active", "warn", "drain"],
  ["left before", (m) => blind() && !unknown(m), "warn", ""],
  ["unknown", unknown, "idle", ""],
  ["alive and well", (m) => !blind() && m.healthy, "good", ""],
];

function people(list) {
  const bad = list.filter(unwell);
  return h(
    "section",
    { class: "card" },
    h("h2", null, h("a", { href: "#/members" }, `${list.length} member${list.length === 1 ? "" : "s"}`)),
    h(
      "ul",
      { class: "counts" },
      groups
        .map(([text, fits, kind, only]) => [text, list.filter(fits).length, kind, only])
        .filter(([, n]) => n > 0)
        .map(([text, n, kind, only]) =>
          h("li", null, mark(kind, h("a", { href: link("members", "", { only }) }, `${n} ${text}`))),
        ),
    ),
    bad.length > 0 &&
      h(
        "ul",
        { class: "plain" },
        bad.slice(0, 6).map((m) => h("li", null, to(m), " ", status(m), h("div", { class: "reason" }, m.reason))),
      ),
    bad.length > 6 &&
      h("p", null, h("a", { href: link("members", "", { only: "unwell" }) }, `and ${bad.length - 6} more`)),
  );
}

function versions(list) {
  const by = [...Map.groupBy(list, (m) => m.binaryVersion)].sort((a, b) => b[1].length - a[1].length);
  return h(
    "section",
    { class: "card" },
    h("h2", null, "Versions"),
    h(
      "ul",
      { class: "plain" },
      by
        .slice(0, 5)
        .map(([v, l]) =>
          h(
            "li",
            null,
            h("a", { href: link("members", "", { find: v }) }, v || "unknown"),
            muted(` ${l.length} of ${list.length}`),
          ),
        ),
    ),
    by.length > 1 && h("p", null, mark("warn", `${by.length} versions at once`)),
  );
}

function disks(list, s) {
  const low = list.filter((m) => m.diskLow),
    stuck = list.filter((m) => m.cannotStore);
  return h(
    "section",
    { class: "card" },
    h("h2", null, "Disks"),
    stuck.length > 0 && h("p", null, mark("bad", "cannot store"), " ", few(stuck, 4, to)),
    low.length > 0 && h("p", null, mark("warn", "nearly full"), " ", few(low, 4, to)),
    !stuck.length &&
      !low.length &&
      h("p", null, blind() ? mark("idle", "unknown") : mark("good", "every member stores and has room")),
    s?.disk &&
      h(
        "p",
        { class: "muted" },
        `${s.name}: ${bytes(s.disk.freeBytes)} of ${bytes(s.disk.totalBytes)} free`,
        s.storing?.ok && `, a write takes ${s.storing.writeMs} ms`,
      ),
  );
}

// The state of the scheduled backups.
function saved(s) {
  const on = s.settings.intervalSeconds > 0;
  return h(
    "section",
    { class: "card" },
    h("h2", null, h("a", { href: "#/backups" }, "Backups")),
    s.problems.map((p) => h("p", null, mark("bad", "to be mended"), " ", p)),
    !on && !s.problems.length && h("p", null, mark("idle", "none by themselves")),
    s.lastGood ? h("p", null, "last good ", when(s.lastGood.startedAt)) : on && h("p", null, mark("warn", "none yet")),
    s.active ? h("p", null, mark("busy", "one is being made")) : s.nextAt && muted("next ", when(s.nextAt)),
  );
}

// Leadership and health as spans of time, for each Raft server and each unhealthy member.
function story(history, list) {
  const now = Date.now(),
    from = Math.max(now - hour, new Date(history.since).getTime());
  const leaders = history.leaders.map((l, i, all) => ({
    node: l.nodeId,
    from: new Date(l.at).getTime(),
    to: all[i + 1] ? new Date(all[i + 1].at).getTime() : now,
  }));
  const time = (t) => new Date(t).toISOString().slice(11, 19);
  const ids = new Set([
    ...list.filter((m) => m.role !== "member").map((m) => m.nodeId),
    ...history.health.map((c) => c.nodeId),
  ]);
  const named = new Map(list.map((m) => [m.nodeId, m]));
  return [...ids]
    .filter((id) => named.has(id))
    .slice(0, 16)
    .map((id) => {
      const changes = history.health.filter((c) => c.nodeId === id);
      const spans = [];
      let at = from,
        well = changes.length ? !changes[0].healthy : true;
      for (const c of [...changes, { at: now, healthy: well }]) {
        const end = new Date(c.at).getTime();
        if (end > at)
          spans.push({
            from: at,
            to: end,
            kind: well ? "good" : "bad",
            text: `${well ? "healthy" : "not healthy"} ${time(at)}–${time(end)}`,
          });
        at = Math.max(at, end);
        well = c.healthy;
      }
      for (const l of leaders) {
        if (l.node === id)
          spans.push({ from: l.from, to: l.to, kind: "lead", text: `leads ${time(l.from)}–${time(l.to)}` });
        else if (l.node === 0)
          spans.push({
            from: l.from,
            to: l.to,
            kind: "none",
            text: `no leader ${time(l.from)}–${time(l.to)}, so not known`,
          });
      }
      return h(
        "li",
        null,
        h("span", { class: "name" }, to(named.get(id))),
        strip(named.get(id).name, spans, from, now),
      );
    });
}

const most = (history) =>
  history.at.map((_, i) =>
    history.servers.reduce((max, s) => (s.lag[i] === null ? max : Math.max(max ?? 0, s.lag[i])), null),
  );

/** The section. */
export function show({ root, signal }) {
  const top = h("div"),
    cards = h("div");
  let list = [],
    history = null;
  const part = live({
    signal,
    what: "The overview",
    async load(ask) {
      const [members, pilot] = await Promise.all([ask("/api/v1/cluster/members"), ask("/api/v1/cluster/autopilot")]);
      const by = new Map(pilot.servers.map((s) => [s.nodeId, s]));
      return members.map((m) => merge(m, by.get(m.nodeId)));
    },
    draw(now, body) {
      list = now;
      if (!body.firstChild) body.append(top);
      const s = pulse().status;
      const shown =
        list.length > 500
          ? [list.length, list.filter((m) => !m.healthy || m.isLeader || m.role === "voter").slice(0, 100)]
          : list;
      put(top, shown, () => headline(list));
      put(cards, [shown, s?.disk && bytes(s.disk.freeBytes)], () => [people(list), versions(list), disks(list, s)]);
      drawStory();
    },
  });
  const ends = expiry(signal);
  const kept = live({
    signal,
    every: 15_000,
    what: "The backups",
    load: (ask) => ask("/api/v1/backups/status"),
    draw: (s, body) => put(body, s, () => saved(s)),
  });
  const strips = h("ul", { class: "strips", "aria-label": "Who led, and who was well" });
  function drawStory() {
    if (history) strips.replaceChildren(...story(history, list));
  }
  const past = live({
    signal,
    every: 10_000,
    what: "The last hour",
    load: (ask, s) => get("/api/v1/cluster/history", s),
    draw(now, body) {
      history = now;
      const figures = h(
        "div",
        { class: "sparks" },
        sparkline("Replication lag", most(history), (n) => `${n} revisions`),
        sparkline("Commit latency", history.commitMs, (n) => `${n < 10 ? n.toFixed(1) : Math.round(n)} ms`, true),
        sparkline("Commits", history.commits, (n) => `${n} in ${history.everySeconds} s`),
      );
      body.replaceChildren(
        h(
          "section",
          { class: "card wide" },
          h("h2", null, "The last hour"),
          muted("as this member remembers it, since ", moment(history.since)),
          figures,
          strips,
          h(
            "p",
            { class: "legend muted" },
            mark("lead", "leads"),
            mark("good", "healthy"),
            mark("bad", "down or not healthy"),
            mark("idle", "no leader: not known"),
          ),
        ),
      );
      drawStory();
    },
  });
  const news = live({
    signal,
    every: 3000,
    what: "The last events",
    load: (ask) => ask("/api/v1/audit?order=desc&limit=8"),
    draw({ entries }, body) {
      put(body, entries, () =>
        h(
          "section",
          { class: "card wide" },
          h("h2", null, h("a", { href: "#/events" }, "Last events")),
          h(
            "ul",
            { class: "plain news" },
            entries.map((e) =>
              h(
                "li",
                null,
                clock(e.at.slice(11)),
                h("code", null, e.action),
                h("span", { class: "object" }, short(e.object)),
                muted(short(e.detail ?? "")),
                muted("by ", actor(e.actor)),
              ),
            ),
          ),
        ),
      );
    },
  });
  root.append(heading("Overview"), part.el, h("div", { class: "cards" }, cards, kept.el, ends.el), past.el, news.el);
}
