// Peerings with other clusters.
import { call, get } from "./api.js";
import { ask } from "./dialog.js";
import { actor, button, clock, code, copyable, facts, h, heading, labels, mark, muted, none, show, toast, when, word } from "./dom.js";
import { live } from "./live.js";
import { table } from "./table.js";

const one = (name) => `/v1/peering/${encodeURIComponent(name)}`;
const kinds = { ACTIVE: "good", ESTABLISHING: "busy", PENDING: "idle", FAILING: "bad", DELETING: "busy", TERMINATED: "warn" };
const state = (p) => mark(kinds[p.State] ?? "idle", p.State.toLowerCase());
const imported = (p) => p.StreamStatus?.ImportedServices?.length ?? 0, exported = (p) => p.StreamStatus?.ExportedServices?.length ?? 0;
const nameField = { name: "name", label: "Name of the other cluster here", required: true, placeholder: "berlin", help: "Lower-case letters, digits and dashes." };

function create(changed) {
  ask({
    title: "Create a peering token", action: "Create",
    intro: h("p", null, "The other cluster establishes the peering with the token."),
    fields: [nameField,
      { name: "addresses", label: "Addresses to dial", type: "lines", placeholder: "gateway.example:7000", help: "One HOST:PORT on each line. Empty: what the members advertise." },
      { name: "ttl", label: "Usable for", options: [["", "without end"], ["1h", "1 hour"], ["24h", "1 day"], ["168h", "7 days"]], value: "" }],
    command: (v) => ["muster peering token", word(v.name || "NAME"), ...lines(v.addresses).map((a) => `--address ${word(a)}`), v.ttl && `--ttl ${v.ttl}`].filter(Boolean).join(" "),
    run: (v) => call("POST", "/v1/peering/token", { body: { PeerName: v.name, ServerExternalAddresses: lines(v.addresses), ...(v.ttl && { TokenTTL: v.ttl }) } }),
    done: (t) => h("div", null, h("p", null, h("strong", null, "The token is shown this once."), " Establish the peering with it on the other cluster."),
      copyable(t.PeeringToken, "the peering token"), (t.Warnings ?? []).map((w) => h("p", { class: "muted" }, w))),
    closed: changed,
  });
}

const lines = (text) => text.split("\n").map((l) => l.trim()).filter(Boolean);

function establish(changed) {
  ask({
    title: "Establish a peering", action: "Establish",
    fields: [nameField, { name: "token", label: "Token of the other cluster", type: "password", required: true, help: "It was made there and can be used once." }],
    command: (v) => `muster peering establish ${word(v.name || "NAME")} "$TOKEN"`,
    run: (v) => call("POST", "/v1/peering/establish", { body: { PeerName: v.name, PeeringToken: v.token } }),
    done: () => { toast("The peering is established"); changed(); },
  });
}

function remove(p, changed) {
  ask({
    title: `Delete the peering ${p.Name}`, action: "Delete", danger: true, typed: p.Name,
    intro: h("p", null, "The stream ends, what was imported is removed, and the other cluster shows the peering as terminated."),
    command: () => `muster peering delete ${word(p.Name)}`,
    run: () => call("DELETE", one(p.Name)),
    done: () => { toast("The peering is being deleted"); changed(); },
  });
}

// Without what moves with every heartbeat.
const steady = (p) => ({ ...p, StreamStatus: { ...p.StreamStatus, LastHeartbeat: null, LastReceive: null, LastSend: null } });

/** The section. */
export function peerings({ root, signal }) {
  const grid = table({
    caption: "Peerings", key: (p) => p.ID, empty: "There are no peerings.",
    columns: [
      { title: "Peering", sort: (p) => p.Name, cell: (p) => [h("a", { href: `#/peerings/${encodeURIComponent(p.Name)}`, class: "name" }, p.Name), p.Remote?.Datacenter && muted(p.Remote.Datacenter)] },
      { title: "State", sort: (p) => p.State, cell: (p) => [state(p), p.StatusReason && h("div", { class: "reason" }, p.StatusReason)] },
      { title: "Since", sort: (p) => p.StatusSince ?? "", cell: (p) => when(p.StatusSince) },
      { title: "Imported", num: true, sort: imported, cell: imported },
      { title: "Exported", num: true, sort: exported, cell: exported },
      { title: "Dials", cell: (p) => (p.Dialer ? "this cluster" : "the other one") },
      { title: "Action", cell: (p) => (p.DeletedAt ? muted("deleted ", when(p.DeletedAt)) : button("Delete…", () => remove(p, part.refresh), "", p.Name)) },
    ],
  });
  const part = live({
    signal, what: "Peering", load: (signal) => get("/v1/peerings", signal),
    draw(list, body) {
      if (!body.firstChild) body.append(grid.el);
      grid.update(list.map(steady));
    },
  });
  const again = () => part.refresh();
  root.append(heading("Peerings", button("Establish…", () => establish(again)), button("Create a peering token…", () => create(again), "primary")), part.el);
}

/** The section of one peering: its members here and how its state went. */
export function peering({ root, signal, id }) {
  const head = h("div"), about = h("div");
  const members = table({
    caption: "Imported members", key: (m) => m.id, empty: "The other cluster exports no members.",
    columns: [
      { title: "Member", sort: (m) => m.name, cell: (m) => [h("div", { class: "name" }, m.name), muted(`node ${m.nodeId}`)] },
      { title: "Health", sort: (m) => m.health, cell: (m) => mark({ alive: "good", left: "idle" }[m.health] ?? "bad", m.health) },
      { title: "API", cell: (m) => code(m.apiAddress) }, { title: "Raft", cell: (m) => code(m.raftAddress) },
    ],
  });
  const part = live({
    signal, what: "This peering", load: (signal) => get(one(id), signal),
    draw(p, body) {
      if (!body.firstChild) body.append(head, about);
      show(head, [p.Name, p.DeletedAt], () => heading(p.Name, !p.DeletedAt && button("Delete…", () => remove(p, () => { location.hash = "#/peerings"; }), "danger")));
      show(about, p, () => facts(
        ["State", state(p)], p.StatusReason && ["Reason", p.StatusReason], ["Since", when(p.StatusSince)],
        ["Imported", String(imported(p))], ["Exported", String(exported(p))], ["Dials", p.Dialer ? "this cluster" : "the other one"],
        ["Last heartbeat", when(p.StreamStatus?.LastHeartbeat)], ["Last received", when(p.StreamStatus?.LastReceive)], ["Last sent", when(p.StreamStatus?.LastSend)],
        p.Remote?.Datacenter && ["Datacenter", p.Remote.Datacenter], p.PeerServerName && ["Server name", code(p.PeerServerName)],
        p.PeerServerAddresses?.length && ["Addresses", (p.Dials ?? p.PeerServerAddresses).map((a) => h("div", null, code(a)))],
        p.Dials && p.PeerServerAddresses?.length && ["Not dialled", p.PeerServerAddresses.filter((a) => !p.Dials.includes(a)).map((a) => h("div", null, code(a)))],
        p.Meta && ["Meta", labels(p.Meta)], ["Id", code(p.ID)]));
    },
  });
  const list = live({
    signal, every: 4000, what: "The list of its members", load: (signal) => get(`/api/v1/peerings/${encodeURIComponent(id)}/members`, signal),
    draw(rows, body) {
      if (!body.firstChild) body.append(members.el);
      members.update(rows ?? []);
    },
  });
  const story = table({
    caption: "History", key: (e) => `${e.revision}.${e.seq}`, empty: "Nothing is recorded.",
    columns: [
      { title: "Time (UTC)", cell: (e) => clock(e.at) }, { title: "What", cell: (e) => h("code", { class: "short" }, e.action) },
      { title: "Detail", cell: (e) => e.detail || none() }, { title: "Who", cell: (e) => actor(e.actor) },
    ],
  });
  story.el.classList.add("log");
  const history = live({
    signal, every: 4000, what: "The history", load: (signal) => get(`/api/v1/audit?order=desc&limit=50&object=${encodeURIComponent("peering/" + id)}`, signal),
    draw(page, body) {
      if (!body.firstChild) body.append(story.el);
      story.update(page.entries);
    },
  });
  root.append(h("p", { class: "back" }, h("a", { href: "#/peerings" }, "All peerings")), part.el, h("h2", null, "Members of the other cluster"), list.el, h("h2", null, "History"), history.el);
}
