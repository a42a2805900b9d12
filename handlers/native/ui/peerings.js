// Peerings with other clusters.
import { link } from "./address.js";
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { button, copyable, h, heading, mark, muted, toast, when, word } from "./dom.js";
import { live, offered } from "./live.js";
import { blind } from "./pulse.js";
import { may } from "./session.js";
import { table } from "./table.js";

/** The address of one peering. */
export const one = (name) => `/v1/peering/${encodeURIComponent(name)}`;
const kinds = {
  ACTIVE: "good",
  ESTABLISHING: "busy",
  PENDING: "idle",
  FAILING: "bad",
  DELETING: "busy",
  TERMINATED: "warn",
};
/** Its state; without a leader it is unknown whether an active peering is still active. */
export const state = (p) =>
  blind() && p.State === "ACTIVE"
    ? mark("idle", "unknown, was active")
    : mark(kinds[p.State] ?? "idle", String(p.State).toLowerCase());
export const imported = (p) => p.StreamStatus?.ImportedServices?.length ?? 0,
  exported = (p) => p.StreamStatus?.ExportedServices?.length ?? 0;
const nameField = {
  name: "name",
  label: "Name of the other cluster here",
  required: true,
  placeholder: "berlin",
  help: "Lower-case letters, digits and dashes.",
};

function create(changed) {
  ask({
    at: ["create"],
    title: "Create a peering token",
    action: "Create",
    intro: h("p", null, "The other cluster establishes the peering with the token."),
    fields: [
      nameField,
      {
        name: "addresses",
        label: "Addresses to dial",
        type: "lines",
        placeholder: "gateway.example:7000",
        help: "One HOST:PORT on each line. Empty: what the members advertise.",
      },
      {
        name: "ttl",
        label: "Usable for",
        options: [
          ["", "without end"],
          ["1h", "1 hour"],
          ["24h", "1 day"],
          ["168h", "7 days"],
        ],
        value: "",
      },
    ],
    command: (v) =>
      [
        "muster peering token",
        word(v.name || "NAME"),
        ...lines(v.addresses).map((a) => `--address ${word(a)}`),
        v.ttl && `--ttl ${v.ttl}`,
      ]
        .filter(Boolean)
        .join(" "),
    run: (v) =>
      call("POST", "/v1/peering/token", {
        body: { PeerName: v.name, ServerExternalAddresses: lines(v.addresses), ...(v.ttl && { TokenTTL: v.ttl }) },
      }),
    done: (t) =>
      h(
        "div",
        null,
        h(
          "p",
          null,
          h("strong", null, "The token is shown this once."),
          " Establish the peering with it on the other cluster.",
        ),
        copyable(t.PeeringToken, "the peering token"),
        (t.Warnings ?? []).map((w) => h("p", { class: "muted" }, w)),
      ),
    closed: changed,
  });
}

const lines = (text) =>
  text
    .split("\n")
    .map((l) => l.trim())
    .filter(Boolean);

function establish(changed) {
  ask({
    at: ["establish"],
    title: "Establish a peering",
    action: "Establish",
    fields: [
      nameField,
      {
        name: "token",
        label: "Token of the other cluster",
        type: "password",
        required: true,
        help: "It was made there and can be used once.",
      },
    ],
    command: (v) => `muster peering establish ${word(v.name || "NAME")} "$TOKEN"`,
    run: (v) => call("POST", "/v1/peering/establish", { body: { PeerName: v.name, PeeringToken: v.token } }),
    done: () => {
      toast("The peering is established");
      changed();
    },
  });
}

/** Deletes a peering after a question. */
export function remove(p, changed) {
  ask({
    at: ["delete", p.Name],
    title: `Delete the peering ${p.Name}`,
    action: "Delete",
    danger: true,
    typed: p.Name,
    intro: h(
      "p",
      null,
      "The stream ends, what was imported is removed, and the other cluster shows the peering as terminated.",
    ),
    command: () => `muster peering delete ${word(p.Name)}`,
    run: () => call("DELETE", one(p.Name)),
    done: () => {
      toast("The peering is being deleted");
      return changed();
    },
  });
}

// Without the values that change with every heartbeat.
const steady = (p) => ({
  ...p,
  StreamStatus: { ...p.StreamStatus, LastHeartbeat: null, LastReceive: null, LastSend: null },
});

/** The section. */
export function show({ root, signal }) {
  const grid = table({
    caption: "Peerings",
    key: (p) => p.ID,
    empty: "There are no peerings.",
    columns: [
      {
        title: "Peering",
        sort: (p) => p.Name,
        cell: (p) => [
          h("a", { href: link("peerings", p.Name), class: "name" }, p.Name),
          p.Remote?.Datacenter && muted(p.Remote.Datacenter),
        ],
      },
      {
        title: "State",
        sort: (p) => p.State,
        cell: (p) => [state(p), p.StatusReason && h("div", { class: "reason" }, p.StatusReason)],
      },
      { title: "Since", sort: (p) => p.StatusSince ?? "", cell: (p) => when(p.StatusSince) },
      { title: "Imported", num: true, sort: imported, cell: imported },
      { title: "Exported", num: true, sort: exported, cell: exported },
      { title: "Dials", cell: (p) => (p.Dialer ? "this cluster" : "the other one") },
      ...(may("peering:write")
        ? [
            {
              title: "Action",
              cell: (p) =>
                p.DeletedAt
                  ? muted("deleted ", when(p.DeletedAt))
                  : button("Delete…", () => remove(p, part.refresh), "", p.Name),
            },
          ]
        : []),
    ],
  });
  let now = [];
  const part = live({
    signal,
    what: "Peering",
    load: (ask) => ask("/v1/peerings"),
    draw(list, body) {
      if (!body.firstChild) body.append(grid.el);
      now = list;
      grid.update(list.map(steady));
      agree();
    },
  });
  const again = () => part.refresh();
  offer({
    create: () => create(again),
    establish: () => establish(again),
    delete(of) {
      const p = now.find((x) => x.Name === of && !x.DeletedAt);
      if (p) remove(p, again);
    },
  });
  root.append(
    heading(
      "Peerings",
      offered(
        "peering:write",
        button("Establish…", () => establish(again)),
        button("Create a peering token…", () => create(again), "primary"),
      ),
    ),
    part.el,
  );
}
