// The signed-in token. It is in this tab's session storage and is given to other tabs of the same origin on request; it
// ends with the last tab. docs/security.md explains why it is no cookie.

const key = "muster-token";
const channel = new BroadcastChannel("muster-session"); // heard by pages of the same scheme, host and port alone
const listeners = new Set();
let waiting = null; // resolves when another tab has answered
let me = null; // what the cluster says of the token; null: not known, or a member too old to say

export const token = {
  get: () => sessionStorage.getItem(key),
  set(text) {
    sessionStorage.setItem(key, text);
    channel.postMessage({ token: text });
  },
  /** Signs this tab out, and with `everywhere` all tabs. */
  clear(everywhere = true) {
    sessionStorage.removeItem(key);
    me = null;
    if (everywhere) channel.postMessage({ out: true });
  },
};

channel.addEventListener("message", ({ data }) => {
  if (data?.ask && token.get()) channel.postMessage({ token: token.get() });
  else if (typeof data?.token === "string" && !token.get()) {
    sessionStorage.setItem(key, data.token);
    if (waiting) waiting();
    else tell();
  } else if (data?.out && token.get()) {
    token.clear(false);
    tell();
  }
});

const tell = () => listeners.forEach((f) => f());

/** Calls f when another tab has signed this one in or out, or when the token's scopes have changed. */
export function whenChanged(f) {
  listeners.add(f);
}

/** Asks other tabs for their token, and waits briefly. */
export function borrow() {
  if (token.get()) return Promise.resolve();
  return new Promise((resolve) => {
    waiting = () => {
      waiting = null;
      resolve();
    };
    setTimeout(() => waiting?.(), 120);
    channel.postMessage({ ask: true });
  });
}

const implied = { "cluster:read": "cluster:manage", "peering:read": "peering:write" };

/** Whether the token has a scope. While its scopes are unknown, the server decides. */
export const may = (scope) => !me || me.scopes.some((s) => s === scope || s === "management" || s === implied[scope]);

/** The cluster's description of the token: {kind, id, name, scopes, expiresAt}; null while unknown. */
export const whoami = () => me;

export function setWhoami(now, quietly) {
  const before = JSON.stringify(me);
  me = now;
  if (!quietly && before !== JSON.stringify(me)) tell();
}
