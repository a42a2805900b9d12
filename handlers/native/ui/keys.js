// Generations of the data-encryption key.
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { button, h, heading, mark, muted, toast, when } from "./dom.js";
import { live, offered } from "./live.js";
import { table } from "./table.js";

const path = "/api/v1/cluster/keys";

function progress(g) {
  if (!g.total) return muted("nothing to do");
  const done = g.total - g.remaining;
  return h(
    "div",
    { class: "progress" },
    h("progress", { max: g.total, value: done, "aria-label": `Re-encryption for generation ${g.generation}` }),
    h("span", null, `${done} of ${g.total}`),
  );
}

const kinds = { active: "good", "re-encrypting": "busy", prepared: "busy", retired: "idle" };

function rotate(changed) {
  ask({
    at: ["rotate"],
    title: "Rotate the data-encryption key",
    action: "Rotate",
    intro: h(
      "p",
      null,
      "A new generation is made and wrapped for every member. Sealed values are re-encrypted in steps; the old " +
        "generation stays readable until that is done.",
    ),
    fields: [
      {
        name: "age",
        label: "From now on, also by itself",
        options: [
          ["", "as it is set"],
          ["0", "never"],
          ["2592000", "every 30 days"],
          ["7776000", "every 90 days"],
          ["31536000", "every year"],
        ],
        value: "",
      },
    ],
    command: (v) => `muster key rotate${v.age && ` --max-age ${v.age}s`}`,
    run: (v) => call("POST", `${path}/rotate`, { body: v.age === "" ? {} : { maxAgeSeconds: Number(v.age) } }),
    done: (r) => {
      toast(`Generation ${r.generation} is active`);
      changed();
    },
  });
}

function rotateJoin(changed) {
  ask({
    at: ["rotate-join"],
    title: "Rotate the join keys",
    action: "Rotate",
    intro: h(
      "p",
      null,
      "Join tokens are signed with them. Tokens that were made before can still be used during the grace; with " +
        "none they are refused at once.",
    ),
    fields: [
      {
        name: "grace",
        label: "Older tokens are good for",
        options: [
          ["0", "not a moment longer"],
          ["3600", "1 hour"],
          ["86400", "1 day"],
          ["604800", "7 days"],
        ],
        value: "604800",
      },
    ],
    command: (v) => `muster join-keys rotate --grace ${v.grace}s`,
    run: (v) => call("POST", "/api/v1/cluster/join-keys/rotate", { body: { graceSeconds: Number(v.grace) } }),
    done: () => {
      toast("The join keys are new");
      changed();
    },
  });
}

/** The section. */
export function show({ root, signal }) {
  const grid = table({
    caption: "Generations of the data-encryption key",
    key: (g) => g.generation,
    empty: "There are no generations.",
    columns: [
      { title: "Generation", num: true, sort: (g) => g.generation, cell: (g) => g.generation },
      { title: "State", sort: (g) => g.state, cell: (g) => mark(kinds[g.state] ?? "idle", g.state) },
      { title: "Members that hold it", num: true, sort: (g) => g.holders, cell: (g) => g.holders },
      { title: "Re-encryption", cell: progress },
      { title: "Why", sort: (g) => g.reason, cell: (g) => g.reason },
      { title: "Created", sort: (g) => g.createdAt, cell: (g) => when(g.createdAt) },
    ],
  });
  const part = live({
    signal,
    what: "The list of keys",
    load: (ask) => ask(path),
    pause: (list) => (list.some((g) => g.remaining > 0) ? 700 : 3000),
    draw(list, body) {
      if (!body.firstChild) body.append(grid.el);
      grid.update(list.toSorted((a, b) => b.generation - a.generation));
      agree();
    },
  });
  const again = () => part.refresh();
  offer({ rotate: () => rotate(again), "rotate-join": () => rotateJoin(again) });
  root.append(
    heading(
      "Keys",
      offered(
        "keys:manage",
        button("Rotate the join keys…", () => rotateJoin(again)),
        button("Rotate…", () => rotate(again), "primary"),
      ),
    ),
    part.el,
    h(
      "p",
      { class: "note" },
      "Certificates and their authorities are under ",
      h("a", { href: "#/authorities" }, "Certificates"),
      ", sealed values under ",
      h("a", { href: "#/secrets" }, "Secrets"),
      ".",
    ),
  );
}
