// Shared parts of logs: the event stream and the audit.
import { actor, clock, h, mark, muted, none, short } from "./dom.js";

/** The types of events. */
export const types = [
  "access",
  "autopilot",
  "certificate",
  "cluster",
  "key",
  "leader",
  "lease",
  "member",
  "operation",
  "peering",
  "secret",
  "setting",
  "token",
  "workload",
];

/** The columns of a log. */
export const columns = [
  { title: "Time (UTC)", cell: (e) => clock(e.at) },
  {
    title: "What",
    cell: (e) => [
      h("code", { class: "short" }, e.action),
      e.outcome !== "ok" && mark(e.outcome === "refused" ? "bad" : "", e.outcome),
    ],
  },
  {
    title: "Object",
    cell: (e) => (e.object ? h("span", { class: "object", title: e.object }, short(e.object)) : none()),
  },
  { title: "Detail", cell: (e) => (e.detail ? short(e.detail) : none()) },
  {
    title: "Who",
    cell: (e) => [
      h("div", null, actor(e.actor)),
      muted(e.node ? `node ${e.node}` : "", e.remote ? ` from ${e.remote}` : ""),
    ],
  },
  { title: "Revision", num: true, cell: (e) => `${e.revision}.${e.seq}` },
];

/** The key of an entry. */
export const key = (e) => `${e.revision}.${e.seq}`;
