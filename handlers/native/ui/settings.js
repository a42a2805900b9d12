// The settings of the cluster.
import { call } from "./api.js";
import { agree, ask, offer } from "./dialog.js";
import { button, h, heading, none, toast, word } from "./dom.js";
import { live } from "./live.js";
import { may } from "./session.js";
import { table } from "./table.js";

const path = "/api/v1/cluster/settings";

// The scope for changing a setting; the server decides.
const scopeOf = (name) => (name.startsWith("enrollment.") ? "enroll" : "cluster:manage");

function change(name, value, changed) {
  const typed = (text) =>
    typeof value === "boolean" ? text === true : typeof value === "number" ? Number(text) : text;
  const kind = typeof value === "boolean" ? "checkbox" : typeof value === "number" ? "number" : "text";
  ask({
    at: ["change", name],
    title: `Change ${name}`,
    action: "Save",
    fields: [
      { name: "value", label: kind === "checkbox" ? "On" : "Value", type: kind, value },
      { name: "standard", label: "Back to the default", type: "checkbox" },
    ],
    command: (v) => `muster settings set ${name}=${v.standard ? "null" : word(String(typed(v.value)))}`,
    run: (v) => call("PUT", path, { body: { [name]: v.standard ? null : typed(v.value) } }),
    done: () => {
      toast(`${name} is set`);
      changed();
    },
  });
}

/** The section. */
export function show({ root, signal }) {
  let now = {};
  const again = () => part.refresh();
  const grid = table({
    caption: "Settings",
    key: (s) => s.name,
    empty: "There are no settings.",
    columns: [
      { title: "Setting", sort: (s) => s.name, cell: (s) => h("code", null, s.name) },
      { title: "Value", sort: (s) => String(s.value), cell: (s) => String(s.value) },
      ...(may("cluster:manage") || may("enroll")
        ? [
            {
              title: "Action",
              cell: (s) =>
                may("cluster:manage") || may(scopeOf(s.name))
                  ? button("Change…", () => change(s.name, s.value, again), "", s.name)
                  : none(),
            },
          ]
        : []),
    ],
  });
  offer({
    change(of) {
      if (of in now) change(of, now[of], again);
    },
  });
  const part = live({
    signal,
    every: 4000,
    what: "The list of settings",
    load: (ask) => ask(path),
    draw(values, body) {
      if (!body.firstChild) body.append(grid.el);
      now = values;
      grid.update(
        Object.entries(values)
          .map(([name, value]) => ({ name, value }))
          .sort((a, b) => (a.name < b.name ? -1 : 1)),
      );
      agree();
    },
  });
  root.append(
    heading("Settings"),
    !may("cluster:manage") &&
      h(
        "p",
        { class: "note lacking" },
        "Changing most of them takes the scope ",
        h("code", null, "cluster:manage"),
        ".",
      ),
    part.el,
  );
}
