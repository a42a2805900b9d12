// One peering: its members, and the history of its state.
import { link } from "./address.js";
import { agree, offer } from "./dialog.js";
import {
  actor,
  button,
  clock,
  code,
  facts,
  h,
  heading,
  id as copied,
  labels,
  mark,
  muted,
  none,
  short,
  show as put,
  when,
} from "./dom.js";
import { live, offered } from "./live.js";
import { blind } from "./pulse.js";
import { imported, exported, one, remove, state } from "./peerings.js";
import { may } from "./session.js";
import { table } from "./table.js";

/** The section. */
export function show({ root, signal, id }) {
  const head = h("div"),
    about = h("div");
  const members = table({
    caption: "Imported members",
    address: "members-",
    key: (m) => m.id,
    empty: "The other cluster exports no members.",
    columns: [
      {
        title: "Member",
        sort: (m) => m.name,
        cell: (m) => [h("div", { class: "name" }, m.name), muted(`node ${m.nodeId}`)],
      },
      {
        title: "Status",
        sort: (m) => m.health,
        cell: (m) =>
          blind()
            ? mark("idle", "unknown")
            : mark({ alive: "good", left: "warn", unknown: "idle" }[m.health] ?? "bad", m.health),
      },
      { title: "API", cell: (m) => code(m.apiAddress) },
      { title: "Raft", cell: (m) => code(m.raftAddress) },
    ],
  });
  let now = null;
  const gone = () => link("peerings");
  offer({
    delete(of) {
      if (may("peering:write") && now?.Name === of && !now.DeletedAt) remove(now, gone);
    },
  });
  const part = live({
    signal,
    what: "This peering",
    load: (ask) => ask(one(id)),
    draw(p, body) {
      if (!body.firstChild) body.append(head, about);
      now = p;
      put(head, [p.Name, p.DeletedAt], () =>
        heading(
          p.Name,
          !p.DeletedAt &&
            offered(
              "peering:write",
              button("Delete…", () => remove(p, gone), "danger"),
            ),
        ),
      );
      put(about, p, () =>
        facts(
          ["State", state(p)],
          p.StatusReason && ["Reason", p.StatusReason],
          ["Since", when(p.StatusSince)],
          ["Imported", String(imported(p))],
          ["Exported", String(exported(p))],
          ["Dials", p.Dialer ? "this cluster" : "the other one"],
          ["Last heartbeat", when(p.StreamStatus?.LastHeartbeat)],
          ["Last received", when(p.StreamStatus?.LastReceive)],
          ["Last sent", when(p.StreamStatus?.LastSend)],
          p.Remote?.Datacenter && ["Datacenter", p.Remote.Datacenter],
          p.PeerServerName && ["Server name", code(p.PeerServerName)],
          p.PeerServerAddresses?.length && [
            "Addresses",
            (p.Dials ?? p.PeerServerAddresses).map((a) => h("div", null, code(a))),
          ],
          p.Dials &&
            p.PeerServerAddresses?.length && [
              "Not dialled",
              p.PeerServerAddresses.filter((a) => !p.Dials.includes(a)).map((a) => h("div", null, code(a))),
            ],
          p.Meta && ["Meta", labels(p.Meta)],
          ["Id", copied(p.ID, "the id")],
        ),
      );
      agree();
    },
  });
  const list = live({
    signal,
    every: 4000,
    what: "The list of its members",
    load: (ask) => ask(`/api/v1/peerings/${encodeURIComponent(id)}/members`),
    draw(rows, body) {
      if (!body.firstChild) body.append(members.el);
      members.update(rows ?? []);
    },
  });
  const story = table({
    caption: "History",
    address: "history-",
    key: (e) => `${e.revision}.${e.seq}`,
    empty: "Nothing is recorded.",
    columns: [
      { title: "Time (UTC)", cell: (e) => clock(e.at) },
      { title: "What", cell: (e) => h("code", { class: "short" }, e.action) },
      { title: "Detail", cell: (e) => (e.detail ? short(e.detail) : none()) },
      { title: "Who", cell: (e) => actor(e.actor) },
    ],
  });
  story.el.classList.add("log");
  const history = live({
    signal,
    every: 4000,
    what: "The history",
    scope: "cluster:read",
    load: (ask) => ask(`/api/v1/audit?order=desc&limit=50&object=${encodeURIComponent("peering/" + id)}`),
    draw(page, body) {
      if (!body.firstChild) body.append(story.el);
      story.update(page.entries);
    },
  });
  root.append(
    h("p", { class: "back" }, h("a", { href: "#/peerings" }, "All peerings")),
    part.el,
    h("h2", null, "Members of the other cluster"),
    list.el,
    h("h2", null, "History"),
    history.el,
  );
}
