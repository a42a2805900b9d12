// The schema of the database, and who holds a newer one back.
import { link } from "./address.js";
import { get } from "./api.js";
import { facts, h, heading, mark, muted, show as put } from "./dom.js";
import { live } from "./live.js";
import { blind, pulse } from "./pulse.js";

/** The section. */
export function show({ root, signal }) {
  const own = h("div");
  const part = live({
    signal, every: 5000, what: "The schema", load: (ask, s) => get("/api/v1/cluster/schema", s),
    draw(s, body) {
      put(body, s, () => [facts(["Schema of the database", String(s.applied)], ["Newest that the leader knows", String(s.latest)],
        ["State", s.applied === s.latest ? mark("good", "up to date") : mark("warn", "held back")]),
      s.heldBackBy?.length > 0 && h("ul", null, s.heldBackBy.map((m) => h("li", null, h("a", { href: link("members", m.nodeId) }, m.name), muted(` ${m.binaryVersion}, ${blind() ? "unknown" : m.status}: ${m.reason}`))))]);
    },
  });
  const s = pulse().status;
  if (s) own.append(facts(["Schema here", String(s.cluster.appliedSchemaVersion)], ["Newest that this member knows", String(s.schemaVersion)], ["Version of this member", s.version]));
  root.append(heading("Schema"), h("p", { class: "note" }, "The leader applies a newer schema by itself when every live member can work with it."), part.el, h("h2", null, "This member"), own);
}
