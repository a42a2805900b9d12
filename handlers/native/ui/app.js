// The frame: signing in and out, the current section, and whether this member and a leader answer.
import { parse } from "./address.js";
import { APIError, call, read, whenRefused } from "./api.js";
import { agree, closeDialog, offer } from "./dialog.js";
import { h, moment, span } from "./dom.js";
import { blind, follow, leaderless, pulse } from "./pulse.js";
import { comeBack, provider } from "./signin.js";
import { borrow, may, setWhoami, token, whenChanged, whoami } from "./session.js";

// The navigation: [name in the address, title, file, required scope, function for one entry]. A section is loaded when
// it is first shown.
const sections = {
  Cluster: [
    ["overview", "Overview", () => import("./overview.js"), "cluster:read"],
    ["members", "Members", () => import("./members.js"), "cluster:read", () => import("./member.js")],
    ["raft", "Raft", () => import("./raft.js"), "cluster:read"],
    ["autopilot", "Autopilot", () => import("./autopilot.js"), "cluster:read"],
    ["peerings", "Peerings", () => import("./peerings.js"), "peering:read", () => import("./peering.js")],
  ],
  Access: [
    ["join-tokens", "Join tokens", () => import("./jointokens.js"), "cluster:read"],
    ["api-tokens", "API tokens", () => import("./apitokens.js"), "management"],
    ["workloads", "Workloads", () => import("./workloads.js"), "cluster:read"],
    ["enrollment", "Enrollment", () => import("./enrollment.js"), "enroll"],
  ],
  Trust: [
    ["keys", "Keys", () => import("./keys.js"), "keys:manage"],
    ["authorities", "Certificates", () => import("./authorities.js"), "cluster:read"],
    ["secrets", "Secrets", () => import("./secrets.js"), "keys:manage"],
  ],
  Operation: [
    ["events", "Events", () => import("./events.js"), "cluster:read"],
    ["audit", "Audit", () => import("./audit.js"), "cluster:read"],
    ["backups", "Backups", () => import("./backups.js"), "management"],
    ["settings", "Settings", () => import("./settings.js"), "cluster:read"],
    ["schema", "Schema", () => import("./schema.js"), "cluster:read"],
  ],
};
const all = Object.values(sections).flat();

const $ = (id) => document.getElementById(id);
const [main, nav, menu] = [$("main"), $("nav"), $("menu")];
let leaving = new AbortController(); // ends what the present section does
let place = null; // section and entry that are shown

async function open(moved) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const { section, entry, path } = parse();
  place = `${section}/${entry}`;
  const signedIn = Boolean(token.get());
  nav.hidden = menu.hidden = $("signout").hidden = !signedIn;
  closeMenu();
  offer({});
  who();
  if (!signedIn) {
    main.replaceChildren(signIn());
    main.querySelector("input").focus();
    document.title = "Sign in – muster";
    return;
  }
  const found = all.find(([s]) => s === (section || "overview"));
  nav.replaceChildren(
    ...Object.entries(sections).map(([group, list]) =>
      h(
        "div",
        null,
        h("h2", { class: "group" }, group),
        h(
          "ul",
          null,
          list.map(([s, text, , scope]) =>
            h(
              "li",
              null,
              h(
                "a",
                {
                  href: "#/" + s,
                  class: !may(scope) && "closed",
                  title: !may(scope) && `Takes the scope ${scope}`,
                  "aria-current": found?.[0] === s && (entry ? "true" : "page"),
                },
                text,
                !may(scope) && h("span", { class: "hidden" }, " (not allowed)"),
              ),
            ),
          ),
        ),
      ),
    ),
  );
  const focused = document.activeElement;
  const root = h("section");
  main.replaceChildren(root);
  if (!found || (entry && !found[4])) {
    document.title = "Not found – muster";
    root.append(
      h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, "Not found")),
      h(
        "p",
        null,
        "This page has nothing at ",
        h("code", null, "#/" + path),
        ". ",
        h("a", { href: "#/overview" }, "Go to the overview"),
        ".",
      ),
    );
  } else {
    const [name, title, list, scope, one] = found;
    document.title = `${entry ? `${title}: ${entry}` : title} – muster`;
    root.className = name;
    if (!may(scope)) {
      root.append(
        h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, title)),
        h(
          "p",
          { class: "note lacking" },
          `This token may not see it: it takes the scope `,
          h("code", null, scope),
          ".",
        ),
      );
    } else {
      const file = await (entry ? one : list)();
      if (signal.aborted) return;
      file.show({ root, signal, id: entry });
    }
  }
  if (moved) {
    scrollTo(0, 0);
    // nobody has moved it meanwhile
    if ([focused, document.body].includes(document.activeElement)) (main.querySelector("h1") ?? main).focus();
  }
}

// The address has changed: another section, or a dialog in this one.
addEventListener("hashchange", () => {
  const { section, entry } = parse();
  if (place === `${section}/${entry}`) {
    agree();
    return;
  }
  closeDialog();
  open(true);
});

// The cluster's description of a token. This member answers if it knows the token, so that no leader is needed. From a
// member too old for that, a small read is requested instead.
async function identify(secret) {
  const options = secret ? { secret } : {};
  try {
    return await call("GET", "/api/v1/whoami?stale", options);
  } catch (e) {
    if (e.status === 403) return null;
    if (!e.missing) throw e;
  }
  try {
    await call("GET", "/api/v1/cluster/autopilot/config?stale", options);
  } catch (e) {
    if (e.status !== 403) throw e; // a token that may not read the cluster is a token all the same
  }
  return null;
}

function signIn() {
  const error = h("p", { class: "error", role: "alert" });
  const input = h("input", {
    id: "token",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "token-help",
  });
  const go = h("button", { type: "submit", class: "primary" }, "Sign in");
  const form = h(
    "form",
    { method: "dialog", novalidate: true, class: "signin" },
    h("h1", null, "Sign in"),
    h(
      "div",
      { class: "field" },
      h("label", { for: "token" }, "API token"),
      input,
      h(
        "small",
        { id: "token-help" },
        "It holds for all tabs of this browser with this page, and is forgotten with the last of them. The " +
          "founder's is in ",
        h("code", null, "DIR/admin.token"),
        "; make others with ",
        h("code", null, "muster api-token create"),
        ".",
      ),
    ),
    error,
    go,
    provider((text) => {
      error.textContent = text;
    }),
  );
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
      if (/[^\x21-\x7e]/.test(secret)) throw new APIError(401, "");
      setWhoami(await identify(secret), true);
    } catch (e) {
      error.textContent =
        e.status === 401 ? "The cluster does not know this token." : `The token could not be checked: ${e.message}.`;
      input.select();
      return;
    } finally {
      go.disabled = false;
    }
    token.set(secret);
    input.value = "";
    open(true);
  });
  return form;
}

async function signOut(message) {
  token.clear();
  closeDialog();
  await open();
  if (message) main.querySelector(".error").textContent = message;
}

whenRefused(() => {
  if (token.get()) signOut("The cluster does not know this token any more.");
});
$("signout").addEventListener("click", () => signOut());

// The signed-in token, and its expiry.
function who() {
  const me = token.get() ? whoami() : null;
  $("who").replaceChildren(
    ...(me
      ? [
          me.name,
          h("span", { class: "dim" }, ` ${me.scopes.join(", ") || "no scope"}`),
          ...(me.expiresAt ? [h("span", { class: "dim" }, ", until ", moment(me.expiresAt))] : []),
        ]
      : []),
  );
  $("who").title = me ? `${me.kind} ${me.id}` : "";
}

// On narrow screens a button opens the navigation.
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

document.querySelector(".skip").addEventListener("click", (e) => {
  // the address names the section and stays
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
  const { status, lost, heard } = pulse();
  let text = "";
  if (lost)
    text =
      "No connection to this member. The page goes on by itself as soon as it answers; another member's page " +
      "shows the cluster meanwhile.";
  else if (leaderless())
    text =
      "There is no leader: nothing can be changed, and nobody knows how the members are. " +
      "A majority of the voters must be up and reach each other.";
  else if (blind()) text = "The leader does not answer. What is shown may be old.";
  else if (status?.reason) text = `This member is not ready: ${status.reason}.`;
  if (!lost && status?.notices)
    text = [text, ...status.notices.map((n) => `${n[0].toUpperCase()}${n.slice(1)}.`)].filter(Boolean).join(" ");
  $("banner").className = blind() ? "bad" : "warn";
  $("banner").hidden = !text;
  if ($("banner-text").textContent !== text) $("banner-text").textContent = text;
  $("banner-age").textContent = lost && heard ? `Last answer ${span((Date.now() - heard) / 1000)} ago.` : "";
  if (status) {
    const role = lost ? "no answer" : status.cluster.role.toLowerCase();
    const where = `${status.name} · node ${status.cluster.nodeId} · ${role}`;
    if ($("where").textContent !== where) $("where").textContent = where;
    $("where").title = `cluster ${status.cluster.clusterId ?? ""}, version ${status.version}`;
  }
}

// The token's scopes may change, and it may end.
async function watchToken() {
  if (!token.get() || document.hidden) return;
  try {
    setWhoami((await read("/api/v1/whoami")).data);
  } catch {
    /* the sections say what is wrong */
  }
}

async function begin() {
  follow(banner);
  setInterval(banner, 1000);
  let failed = "";
  try {
    const secret = await comeBack();
    if (secret) token.set(secret);
  } catch (e) {
    failed = `You are not signed in: ${e.message}.`;
  }
  await borrow();
  if (token.get()) {
    try {
      setWhoami(
        await Promise.race([
          identify(),
          new Promise((_, no) => {
            setTimeout(no, 1500);
          }),
        ]),
        true,
      );
    } catch {
      /* the sections say what is wrong */
    }
    if (token.get()) await open(); // else it was refused, and that is said
  } else {
    await open();
    main.querySelector(".error").textContent = failed;
  }
  whenChanged(() => open());
  setInterval(watchToken, 30_000);
}
begin();
