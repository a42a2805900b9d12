// Backups: download one, inspect a file locally, and restore one.
import { call, large } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import {
  button,
  clock,
  facts,
  h,
  heading,
  id,
  mark,
  muted,
  none,
  show as put,
  span,
  toast,
  when,
  word,
} from "./dom.js";
import { live } from "./live.js";
import { leaderless } from "./pulse.js";
import { table } from "./table.js";

const path = "/v1/operator/snapshot";
const bytes = (n) =>
  n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e3).toFixed(1)} kB`;
const metaLimit = 1 << 20;

// Reads the first file of the archive, its description: a gzip'ed tar begins with meta.json.
async function inspect(file) {
  const reader = file.stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  let data = new Uint8Array(0);
  const need = async (n) => {
    while (data.length < n) {
      const { done, value } = await reader.read();
      if (done) throw new Error("it ends too early");
      const more = new Uint8Array(data.length + value.length);
      more.set(data);
      more.set(value, data.length);
      data = more;
    }
  };
  try {
    const text = (from, length) => new TextDecoder().decode(data.subarray(from, from + length)).replace(/\0.*$/s, "");
    for (let at = 0; ;) {
      await need(at + 512);
      const name = text(at, 100),
        size = parseInt(text(at + 124, 12).trim(), 8),
        kind = text(at + 156, 1);
      if (!name || !(size >= 0) || at + size > 4 * metaLimit) throw new Error("it has no meta.json in front");
      if (name === "meta.json" && kind !== "x") {
        await need(at + 512 + size);
        return JSON.parse(text(at + 512, size));
      }
      at += 512 + Math.ceil(size / 512) * 512;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function about(file, meta) {
  return h(
    "section",
    { class: "panel" },
    h("h3", null, file.name),
    facts(
      ["Made", clock(String(meta.CreatedAt ?? ""))],
      ["Cluster", id(String(meta.ClusterID ?? ""), "the id of the cluster")],
      ["Revision", String(meta.Index ?? "")],
      ["Schema", String(meta.Schema ?? "")],
      ["Made by", `node ${meta.NodeID ?? "?"}, ${meta.Binary ?? "?"}`],
      ["State", bytes(meta.Size ?? 0)],
      ["File", bytes(file.size)],
      ["Members then", (meta.Members ?? []).map((m) => h("div", null, String(m.Name), muted(` node ${m.NodeID}`)))],
    ),
  );
}

function save() {
  ask({
    at: ["save"],
    title: "Download a backup",
    action: "Download",
    intro: h(
      "p",
      null,
      "The whole state, without what is sealed being opened: only members of today's cluster can read that, " +
        "unless a recipient is named.",
    ),
    fields: [
      {
        name: "recipient",
        label: "Also for the recipient",
        placeholder: "age1…",
        help: "An age recipient, whose identity can then open what is sealed.",
      },
      {
        name: "stale",
        label: "As this member has it",
        type: "checkbox",
        value: leaderless(),
        help: "Works without a leader; it may be old.",
      },
    ],
    command: (v) =>
      `muster backup save FILE${v.recipient && ` --recipient ${word(v.recipient)}`}${v.stale ? " --stale" : ""}`,
    async run(v) {
      const query = new URLSearchParams();
      if (v.recipient) query.set("recipient", v.recipient);
      if (v.stale) query.set("stale", "");
      const response = await large("GET", query.size ? `${path}?${query}` : path);
      const name = `muster-${response.headers.get("X-Nomad-Index") ?? "backup"}.tar.gz`;
      await download(response, name);
    },
    done: () => undefined,
  });
}

function restore(file, meta, report) {
  ask({
    at: ["restore"],
    title: `Restore ${file.name}`,
    action: "Restore",
    danger: true,
    typed: "restore",
    intro: [
      h(
        "p",
        null,
        "What people have put in becomes what it was: tokens, peerings, secrets, settings. Members, keys and " +
          "certificates stay as they are now, and what was revoked stays revoked.",
      ),
      about(file, meta),
    ],
    command: () => `muster backup restore ${word(file.name)}`,
    async run() {
      const response = await large("PUT", path, { raw: file });
      return response.headers.get("X-Muster-Restored") ?? "";
    },
    done: (what) => {
      report.replaceChildren(mark("good", "The backup is restored"), h("p", null, what || "Nothing had changed."));
      toast("The backup is restored");
    },
  });
}

const states = { good: "good", failed: "bad", running: "busy", waiting: "busy" };

// Saves the body of an answer under a name.
async function download(response, name) {
  const url = URL.createObjectURL(await response.blob());
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  toast(`${name} is downloaded`);
}

function fetchOne(b) {
  ask({
    at: ["get", b.id],
    title: `Download the backup of ${b.startedAt}`,
    action: "Download",
    intro: h("p", null, "The file as its member has written it", b.encrypted ? ", encrypted." : "."),
    command: () => `muster backup get ${b.id} FILE`,
    run: () => large("GET", `/api/v1/backups/${encodeURIComponent(b.id)}/file?stale`),
    done: (response) => {
      download(response, b.file);
    },
  });
}

function verify(b, again) {
  ask({
    at: ["verify", b.id],
    title: `Read the backup of ${b.startedAt} again`,
    action: "Read it",
    intro: h(
      "p",
      null,
      "Its member compares the file with what it wrote, and restores on trial what is not encrypted.",
    ),
    command: () => `muster backup verify ${b.id}`,
    run: () => call("POST", `/api/v1/backups/${encodeURIComponent(b.id)}/verify`, { body: {}, ms: 9 * 60_000 }),
    done: (check) => {
      toast(check.ok ? "It is what was written" : `It is not what it was: ${check.reason}`);
      again();
    },
  });
}

// The place of a backup: a file in a directory of its member, or in a bucket.
const place = (b) => (b.file && b.target.startsWith("s3://") ? `${b.target}/${b.file}` : b.file);

// Scheduled and requested backups, and their problems.
function made(signal) {
  const said = h("div");
  const again = () => part.refresh();
  const whole = (b) => b.state === "good" && b.present;
  const grid = table({
    caption: "Backups that members have made",
    key: (b) => b.id,
    empty: "There is none yet.",
    address: "made-",
    columns: [
      { title: "State", sort: (b) => b.state, cell: (b) => mark(states[b.state] ?? "warn", b.state) },
      { title: "Begun", sort: (b) => b.startedAt, cell: (b) => when(b.startedAt) },
      { title: "Member", sort: (b) => b.nodeId, cell: (b) => (b.nodeId ? `node ${b.nodeId}` : none()) },
      { title: "Size", num: true, sort: (b) => b.bytes, cell: (b) => (b.bytes ? bytes(b.bytes) : none()) },
      {
        title: "File",
        cell: (b) => b.reason || (b.state === "good" && !b.present ? "its member was removed" : place(b)) || none(),
      },
      {
        title: "Action",
        cell: (b) =>
          whole(b) && [
            button("Download…", () => fetchOne(b), "", b.id),
            button("Check…", () => verify(b, again), "", b.id),
          ],
      },
    ],
  });
  let now = [];
  const find = (dialog) => (of) => {
    const b = now.find((x) => x.id === of);
    if (b && whole(b)) dialog(b, again);
  };
  const part = live({
    signal,
    every: 3000,
    what: "The list of backups",
    async load(ask) {
      const [list, status] = await Promise.all([ask("/api/v1/backups"), ask("/api/v1/backups/status")]);
      return { list, status };
    },
    draw({ list, status }, body) {
      now = list;
      if (!body.firstChild) {
        body.append(said, grid.el);
        offer({ save, run: () => run(again), get: find(fetchOne), verify: find(verify) });
      }
      put(said, status, () => plan(status));
      grid.update(list);
      agree();
    },
  });
  return part;
}

function plan(status) {
  const every = status.settings.intervalSeconds;
  return [
    status.problems.map((text) => h("p", { class: "error" }, text)),
    h(
      "p",
      { class: "note" },
      every
        ? `Every ${span(every)} into ${status.settings.directory || "nowhere: no directory is set"}.`
        : "No interval is set: nothing is saved by itself.",
      status.nextAt && [" The next one is made ", when(status.nextAt), "."],
    ),
  ];
}

function run(again) {
  ask({
    at: ["run"],
    title: "Have a backup made now",
    action: "Make it",
    intro: h("p", null, "A member saves the state to where the settings say, reads it back, and restores it on trial."),
    command: () => "muster backup run --detach",
    run: () => call("POST", "/api/v1/backups", {}),
    done: () => {
      toast("A member makes it");
      setTimeout(again, 3000);
    },
  });
}

/** The section. */
export function show({ root, signal }) {
  const own = made(signal);
  const input = h("input", { type: "file", id: "archive", accept: ".gz,.tgz,.snap,application/gzip" });
  const found = h("div", { role: "status" }),
    report = h("div", { role: "status" });
  input.addEventListener("change", async () => {
    const file = input.files[0];
    report.replaceChildren();
    if (!file) return;
    try {
      const meta = await inspect(file);
      found.replaceChildren(
        about(file, meta),
        button("Restore it…", () => restore(file, meta, report), "danger"),
      );
    } catch (e) {
      found.replaceChildren(
        h(
          "p",
          { class: "error" },
          `${file.name} is no backup that this page can read: ${e.message}. ` +
            "One that is encrypted to an age recipient is opened with age first.",
        ),
      );
    }
  });
  offer({ save, run: () => run(own.refresh) });
  root.append(
    heading(
      "Backups",
      button("Download a backup…", save, "primary"),
      button("Make one now…", () => run(own.refresh)),
    ),
    h("h2", null, "Made by members"),
    own.el,
    h("h2", null, "Look into a file"),
    h("p", { class: "note" }, "The file is read here in the browser, and sent nowhere until it is restored."),
    h("div", { class: "field" }, h("label", { for: "archive" }, "A backup"), input),
    found,
    report,
  );
}
