// The frame: signing in and out, which section is shown, and whether this member and a leader answer.
import { APIError, call, get, token, whenRefused } from "./api.js";
import { h, sleep, span } from "./dom.js";
import { audit, events } from "./log.js";
import { authorities } from "./authorities.js";
import { enrollment } from "./enrollment.js";
import { joinTokens } from "./jointokens.js";
import { keys } from "./keys.js";
import { member } from "./member.js";
import { members } from "./members.js";
import { peering, peerings } from "./peerings.js";
import { raft } from "./raft.js";

// What the navigation shows, and what a click on an entry of a list leads to.
const sections = [
  ["members", "Members", members], ["join-tokens", "Join tokens", joinTokens], ["enrollment", "Enrollment", enrollment],
  ["peerings", "Peerings", peerings], ["keys", "Keys", keys], ["authorities", "Certificates", authorities],
  ["raft", "Raft", raft], ["events", "Events", events], ["audit", "Audit", audit],
];
const details = { members: member, peerings: peering };

const $ = (id) => document.getElementById(id);
const [main, nav, menu] = [$("main"), $("nav"), $("menu")];
let leaving = new AbortController(); // ends what the present section does

/** What the page knows about this member without a token. */
const state = { status: null, heard: 0, lost: false };

function open(moved) {
  leaving.abort();
  leaving = new AbortController();
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const signedIn = Boolean(token.get());
  nav.hidden = menu.hidden = $("signout").hidden = !signedIn;
  closeMenu();
  if (!signedIn) {
    main.replaceChildren(signIn());
    main.querySelector("input").focus();
    document.title = "Sign in – muster";
    return;
  }
  const [id, title, section] = sections.find(([s]) => s === name) ?? sections[0];
  const of = rest.length && details[id] ? decoded(rest.join("/")) : "";
  nav.replaceChildren(h("ul", null, sections.map(([s, text]) => h("li", null,
    h("a", { href: "#/" + s, "aria-current": s === id && (of ? "true" : "page") }, text)))));
  document.title = `${of ? `${title}: ${of}` : title} – muster`;
  const root = h("section");
  main.replaceChildren(root);
  (of ? details[id] : section)({ root, signal: leaving.signal, id: of });
  if (moved) {
    scrollTo(0, 0);
    (main.querySelector("h1") ?? main).focus();
  }
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

// Asks for something small. Without a leader this member answers from what it has itself, so that one can sign in and look.
async function check(secret) {
  if (/[^\x21-\x7e]/.test(secret)) throw new APIError(401, "");
  try {
    await call("GET", "/api/v1/cluster/autopilot/config", { secret });
  } catch (e) {
    if (e.status !== 503) throw e;
    await call("GET", "/api/v1/audit?stale&limit=1", { secret });
  }
}

function signIn(message = "") {
  const error = h("p", { class: "error", role: "alert" }, message);
  const input = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-help" });
  const go = h("button", { type: "submit", class: "primary" }, "Sign in");
  const form = h("form", { method: "dialog", novalidate: true, class: "signin" },
    h("h1", null, "Sign in"),
    h("div", { class: "field" }, h("label", { for: "token" }, "API token"), input,
      h("small", { id: "token-help" }, "It stays in this tab and is forgotten when the tab is closed. The founder's is in ", h("code", null, "DIR/admin.token"),
        "; make others with ", h("code", null, "muster api-token create"), ".")),
    error, go);
  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    const secret = input.value.trim();
    error.textContent = "";
    if (!secret) {
      error.textContent = "Paste an API token.";
      return;
    }
    go.disabled = true;
    try {
      await check(secret);
    } catch (e) {
      if (e.status !== 403) { // a token that may not read the cluster is a token all the same
        error.textContent = e.status === 401 ? "The cluster does not know this token." : `The token could not be checked: ${e.message}.`;
        input.select();
        return;
      }
    } finally {
      go.disabled = false;
    }
    token.set(secret);
    input.value = "";
    open(true);
  });
  return form;
}

function signOut(message) {
  token.clear();
  document.querySelectorAll("dialog").forEach((d) => d.close());
  open();
  if (message) main.querySelector(".error").textContent = message;
}

whenRefused(() => { if (token.get()) signOut("The cluster does not know this token any more."); });
$("signout").addEventListener("click", () => signOut());

// Narrow screens have the navigation behind a button.
function closeMenu() {
  nav.classList.remove("open");
  menu.setAttribute("aria-expanded", "false");
}
menu.addEventListener("click", () => menu.setAttribute("aria-expanded", String(nav.classList.toggle("open"))));
nav.addEventListener("keydown", (e) => {
  if (e.key !== "Escape") return;
  closeMenu();
  menu.focus();
});

document.querySelector(".skip").addEventListener("click", (e) => { // the address names the section and stays
  e.preventDefault();
  main.focus();
});

const themes = ["auto", "light", "dark"];
function paint(theme) {
  if (theme === "auto") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("muster-theme");
  } else {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("muster-theme", theme);
  }
  $("theme").textContent = "Theme: " + theme;
}
const themeNow = () => document.documentElement.dataset.theme ?? "auto";
$("theme").addEventListener("click", () => paint(themes[(themes.indexOf(themeNow()) + 1) % 3]));
paint(themeNow());

function banner() {
  const { status, lost, heard } = state;
  let text = "";
  if (lost) text = "No connection to this member. The page goes on by itself as soon as it answers; another member's page shows the cluster meanwhile.";
  else if (status && !status.cluster.leaderNodeId) text = "There is no leader: the cluster cannot change anything, and what is shown may be old. A majority of the voters must be up and reach each other. Raft, Events and Audit show what this member knows itself.";
  else if (status?.reason) text = `This member is not ready: ${status.reason}.`;
  if (!lost && status?.notices) text = [text, ...status.notices.map((n) => `${n[0].toUpperCase()}${n.slice(1)}.`)].filter(Boolean).join(" ");
  const urgent = lost || status && !status.cluster.leaderNodeId;
  $("banner").className = urgent ? "bad" : "warn";
  $("banner").hidden = !text;
  if ($("banner-text").textContent !== text) $("banner-text").textContent = text;
  $("banner-age").textContent = lost && heard ? `Last answer ${span((Date.now() - heard) / 1000)} ago.` : "";
  if (status) {
    const place = `${status.name} · node ${status.cluster.nodeId} · ${status.cluster.role.toLowerCase()}`;
    if ($("where").textContent !== place) $("where").textContent = place;
    $("where").title = `cluster ${status.cluster.clusterId ?? ""}, version ${status.version}`;
  }
}

async function watch() {
  for (let failed = 0; ;) {
    try {
      const limit = AbortSignal.timeout(5000);
      state.status = await get("/api/v1/status", limit);
      [state.heard, state.lost, failed] = [Date.now(), false, 0];
    } catch {
      state.lost = ++failed > 1; // one that got lost is no news
    }
    banner();
    await sleep(state.lost ? 1000 : 2000);
    while (document.hidden) await sleep(500);
  }
}
setInterval(banner, 1000);
addEventListener("hashchange", () => open(true));
open();
watch();
