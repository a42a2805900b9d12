// The next expiries: certificates, authorities, tokens.
import { h, mark, muted, none, show as put, span } from "./dom.js";
import { live } from "./live.js";
import { may } from "./session.js";

// All expiries visible to the token, soonest first: [{at, what, name, href, warn}]; warn: days of advance warning.
async function endings(ask) {
  const [cas, certificates, joins, tokens, enrolls] = await Promise.all([
    ask("/api/v1/cluster/ca"),
    ask("/api/v1/cluster/certificates?current=true"),
    ask("/api/v1/cluster/join-tokens"),
    may("management") ? ask("/api/v1/api-tokens") : [],
    may("enroll") ? ask("/api/v1/cluster/enrollment-tokens") : [],
  ]);
  const end = (what, href, warn, name) => (x) => ({ at: x.expiresAt ?? x.notAfter, what, name: name(x), href, warn });
  const valid = (t) => t.state === "valid";
  return [
    ...cas.flatMap((k) =>
      k.generations
        .filter((g) => g.state !== "retired")
        .map(end(`${k.kind} authority`, "#/authorities", 60, (g) => `generation ${g.generation}`)),
    ),
    ...certificates.map((c) => end(`${c.kind} certificate`, "#/authorities", 14, () => c.node ?? "")(c)),
    ...joins.filter(valid).map(end("join token", "#/join-tokens", 0, (t) => t.id.slice(-8))),
    ...tokens
      .filter((t) => t.expiresAt && new Date(t.expiresAt) > Date.now())
      .map(end("API token", "#/api-tokens", 7, (t) => t.name)),
    ...enrolls.filter(valid).map(end("enrollment token", "#/enrollment", 0, (t) => t.name)),
  ].sort((a, b) => (a.at < b.at ? -1 : 1));
}

// Expiries of one kind on the same day share a line.
function together(list) {
  const by = [...Map.groupBy(list, (e) => e.what + e.at.slice(0, 10)).values()];
  return by
    .slice(0, 6)
    .map((l) => ({ ...l[0], name: l.length > 2 ? `${l.length} of them` : l.map((e) => e.name).join(", ") }));
}

function line(e) {
  const left = (new Date(e.at) - Date.now()) / 1000;
  const text = left < 0 ? "ended" : `in ${span(left)}`;
  const soon = left < e.warn * 86_400;
  return h(
    "li",
    null,
    soon ? mark(left < e.warn * 43_200 ? "bad" : "warn", text) : h("strong", null, text),
    " ",
    h("a", { href: e.href }, e.what),
    muted(` ${e.name}`),
  );
}

/** The card; it updates itself. */
export function expiry(signal) {
  const card = (list) =>
    h(
      "section",
      { class: "card whole" },
      h("h2", null, "Ends next"),
      list.length ? h("ul", { class: "plain side" }, list.map(line)) : none(),
    );
  const draw = (list, body) => put(body, list, () => card(list));
  const load = async (ask) => together(await endings(ask));
  return live({ signal, every: 15_000, what: "What ends next", load, draw });
}
