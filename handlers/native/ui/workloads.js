// Workloads: software with an identity from the members it runs on.
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { actor, button, copyable, h, heading, id, muted, none, toast, when, word } from "./dom.js";
import { live } from "./live.js";
import { may } from "./session.js";
import { table } from "./table.js";

const path = "/api/v1/workloads";
const hosts = (v) => (v.hosts ?? "").split(/[\s,]+/).filter(Boolean);

function create(changed) {
  const flag = (name, value) => (value ? `--${name} ${word(value)}` : "");
  ask({
    at: ["create"],
    title: "Register a workload",
    action: "Register",
    intro: h(
      "p",
      null,
      "A process gets the identity from the member that it runs on when it matches every selector that is given. " +
        "At least one is.",
    ),
    fields: [
      { name: "path", label: "Path", required: true, help: "Of the SPIFFE ID, such as /billing/api." },
      { name: "user", label: "Unix user", help: "A name, or a number." },
      { name: "group", label: "Unix group", help: "A name, or a number; supplementary groups count." },
      { name: "unit", label: "systemd unit", help: "Such as billing.service." },
      { name: "node", label: "Member", help: "The number of the one that it runs on; nothing stands for any." },
      {
        name: "hosts",
        label: "Hosts",
        help: "DNS names and IP addresses that its certificates are for besides, with commas between them.",
      },
    ],
    command: (v) =>
      [
        "muster workload create",
        word(v.path || "PATH"),
        flag("user", v.user),
        flag("group", v.group),
        flag("unit", v.unit),
        flag("node", v.node),
        ...hosts(v).map((x) => flag("host", x)),
      ]
        .filter(Boolean)
        .join(" "),
    run: (v) =>
      call("POST", path, {
        body: {
          path: v.path,
          user: v.user || undefined,
          group: v.group || undefined,
          unit: v.unit || undefined,
          nodeId: v.node ? Number(v.node) : undefined,
          hosts: hosts(v).length ? hosts(v) : undefined,
        },
      }),
    done: (w) => h("div", null, h("p", null, "Its identity is"), copyable(w.spiffeId, "the SPIFFE ID")),
    closed: changed,
  });
}

function remove(w, changed) {
  ask({
    at: ["delete", w.id],
    title: `Delete ${w.path}`,
    action: "Delete",
    danger: true,
    typed: w.path,
    intro: h("p", null, "Its software gets no identity any more. What it has is valid until it expires."),
    command: () => `muster workload delete ${word(w.id)}`,
    run: () => call("DELETE", `${path}/${encodeURIComponent(w.id)}`),
    done: () => {
      toast(`${w.path} is deleted`);
      changed();
    },
  });
}

/** The section. */
export function show({ root, signal }) {
  let now = [];
  const again = () => part.refresh();
  const grid = table({
    caption: "Workloads",
    key: (w) => w.id,
    empty: "No workload is registered.",
    columns: [
      {
        title: "Path",
        sort: (w) => w.path,
        cell: (w) => [h("div", { class: "name" }, w.path), h("div", null, id(w.id, "the id"))],
      },
      { title: "Member", num: true, sort: (w) => w.nodeId ?? 0, cell: (w) => w.nodeId ?? muted("any") },
      { title: "User", sort: (w) => w.user ?? "", cell: (w) => w.user ?? none() },
      { title: "Group", sort: (w) => w.group ?? "", cell: (w) => w.group ?? none() },
      { title: "Unit", sort: (w) => w.unit ?? "", cell: (w) => w.unit ?? none() },
      { title: "Hosts", cell: (w) => (w.hosts ?? []).join(", ") || none() },
      {
        title: "Created",
        sort: (w) => w.createdAt,
        cell: (w) => [h("div", null, when(w.createdAt)), muted("by ", actor(w.createdBy))],
      },
      { title: "Action", cell: (w) => may("cluster:manage") && button("Delete…", () => remove(w, again), "", w.path) },
    ],
  });
  offer({
    create: () => create(again),
    delete(of) {
      const w = now.find((x) => x.id === of);
      if (w) remove(w, again);
    },
  });
  const part = live({
    signal,
    every: 4000,
    what: "The list of workloads",
    load: (ask) => ask(path),
    draw(list, body) {
      if (!body.firstChild) body.append(grid.el);
      now = list;
      grid.update(list);
      agree();
    },
  });
  root.append(
    heading("Workloads", may("cluster:manage") && button("Register a workload…", () => create(again), "primary")),
    part.el,
  );
}
