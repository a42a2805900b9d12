// Signing in with the cluster's identity provider: the browser goes there and returns with a code, which this member
// exchanges (authorization code with PKCE, RFC 7636). The state in between is in this tab's session storage.
import { h } from "./dom.js";
import { call } from "./api.js";

const key = "muster-signin";
const redirectUri = location.origin + "/ui/";

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

/** A button for the identity provider, if the cluster has one; fail(text) shows errors. */
export function provider(fail) {
  const place = h("div", { class: "provider" });
  call("GET", "/api/v1/login").then(
    (how) => {
      if (!how.issuer) return;
      const button = h(
        "button",
        { type: "button", disabled: !how.authorizationEndpoint },
        "Sign in with ",
        new URL(how.issuer).host,
      );
      button.addEventListener("click", () =>
        leave(how).catch((e) => fail(`The sign-in could not begin: ${e.message}.`)),
      );
      place.append(button);
      if (how.problem) place.append(h("p", { class: "note" }, `${how.problem}; API tokens work as before.`));
    },
    () => {},
  ); // there is no leader, or the member is too old: tokens remain
  return place;
}

async function leave(how) {
  const flow = { state: random(), nonce: random(), codeVerifier: random(), hash: location.hash };
  sessionStorage.setItem(key, JSON.stringify(flow));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(flow.codeVerifier));
  const to = new URL(how.authorizationEndpoint);
  for (const [name, value] of Object.entries({
    response_type: "code",
    client_id: how.clientId,
    redirect_uri: redirectUri,
    scope: how.scopes.join(" "),
    state: flow.state,
    nonce: flow.nonce,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: "S256",
  }))
    to.searchParams.set(name, value);
  location.assign(to);
}

/**
 * Takes the identity provider's answer from the address and removes it there. Returns the new token's secret, or null
 * without an answer; throws if the sign-in has failed.
 */
export async function comeBack() {
  const answer = new URLSearchParams(location.search);
  if (!answer.has("state")) return null;
  const flow = JSON.parse(sessionStorage.getItem(key) ?? "null");
  sessionStorage.removeItem(key);
  history.replaceState(null, "", "/ui/" + (flow?.hash ?? ""));
  if (flow?.state !== answer.get("state")) throw new Error("the answer belongs to no sign-in of this tab");
  if (!answer.get("code")) throw new Error(`the identity provider says ${answer.get("error") ?? "nothing"}`);
  const made = await call("POST", "/api/v1/login", {
    body: { code: answer.get("code"), codeVerifier: flow.codeVerifier, redirectUri, nonce: flow.nonce },
  });
  return made.token;
}
