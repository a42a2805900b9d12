package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// What is shown stands in the address: it is there again after a reload, Back closes a dialog, and the page says what
// does not exist.
func testUIAddress(t *testing.T, c *cluster, b *browser) {
	page := c.addrs[2] + "/ui/"
	b.open(page + "#/members")
	b.fill("Find", "node-2")
	b.await(`document.querySelectorAll("tbody tr").length === 1 && location.hash.includes("find=node-2")`)
	b.click("Role")
	b.click("Role")
	b.await(`location.hash.includes("sort=-role")`)
	b.reload()
	b.await(`document.querySelectorAll("tbody tr").length === 1 && document.querySelector("#find").value === "node-2"`)
	b.await(`document.querySelector("[aria-sort=descending]").innerText.includes("Role")`)

	b.click("Drain…")
	b.await(`location.hash.includes("dialog=drain&of=2") && document.querySelector("dialog")`)
	eval[bool](b, `(history.back(), true)`)
	b.await(`!document.querySelector("dialog") && !location.hash.includes("dialog") && ` +
		`location.hash.includes("find=node-2")`)
	b.click("Drain…")
	b.reload()
	b.await(`document.querySelector("dialog h2")?.innerText.startsWith("Drain node-2")`)
	b.press("\x1b")
	b.await(`!document.querySelector("dialog") && !location.hash.includes("dialog")`)
	b.click("Drain…")
	b.open(page + "#/keys")
	b.await(`!document.querySelector("dialog") && document.querySelector("h1")?.innerText === "Keys"`)

	for _, hash := range []string{"#/nothing", "#/keys/1", "#/" + hostile} {
		b.open(page + hash)
		b.shows("This page has nothing at")
	}
	b.open(page + "#/members/4711")
	b.shows("not found")
	b.open(page + "#/audit?action=leader.")
	b.await(`document.querySelectorAll("tbody tr").length > 0`)
	b.await(`[...document.querySelectorAll("tbody tr")].every((tr) => tr.innerText.includes("leader."))`)

	b.open(page + "#/members/1")
	b.await(`document.querySelector(".copyid")`)
	eval[bool](b, `(navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }, true)`)
	eval[bool](b, `(document.querySelector(".copyid").click(), true)`)
	b.await(`window.copied?.length === 36 && document.querySelector(".copyid").innerText === "Copied"`)
}

// Every text that the API gives, in every section, is shown as it is.
func testUIHostile(t *testing.T, c *cluster, b *browser) {
	page := c.addrs[2] + "/ui/"
	c.result("POST", "/api/v1/cluster/join-tokens", `{"bindName": "x*"}`, nil)
	c.result("PUT", "/api/v1/cluster/secrets/db.password", `{"value": "s3cret"}`, nil)
	c.result("PUT", "/api/v1/cluster/leases/one", `{"nodeId": 1, "ttlSeconds": 600}`, nil)
	c.result("POST", "/api/v1/workloads", `{"path": "/billing", "user": "billing"}`, nil)
	b.open(page + "#/schema")
	b.shows("up to date")
	// Whatever is no time, no state that the page reads, and no place in a log.
	b.answer(`(url, o) => real(url, o).then(async (r) => {
		const json = (r.headers.get("Content-Type") ?? "").includes("json");
		if (!json || ["/events", "/status", "whoami"].some((part) => url.includes(part))) return r;
		const kept = (v, k) => /^\d{4}-\d\d-\d\dT/.test(v) || k === "next";
		const worse = (v, k) => {
			if (typeof v === "string") return kept(v, k) ? v : ` + "`" + hostile + "${v}`" + `;
			if (Array.isArray(v)) return v.map((x) => worse(x));
			return v && typeof v === "object" ? Object.fromEntries(Object.entries(v).map(([k, x]) => [k, worse(x, k)])) : v;
		};
		const body = await r.json();
		if (url.includes("/autopilot") && body.result?.servers) { // zones and backups that this cluster does not have
			body.result.zones = [{ name: "zone", members: 1, alive: 1, eligible: 1, voters: 1, standBys: 0,
				 survivable: false, reason: "why" }];
			body.result.spread = "spread";
		}
		if (url.includes("/cluster/members") && Array.isArray(body.result)) {
			body.result.forEach((m) => { m.zone = "zone"; m.zoneCost = "cost"; m.cannotStore = "disk"; });
		}
		if (url.endsWith("/api/v1/backups")) body.result = [{
			id: "id", state: "failed", cause: "request", nodeId: 1, node: "node", file: "file", target: "target",
			reason: "why", startedAt: "2026-11-21T04:37:26Z",
		}];
		return new Response(JSON.stringify(worse(body)), { status: r.status, headers: r.headers });
	})`)
	for _, hash := range []string{"overview", "members", "members/1", "raft", "autopilot", "peerings", "join-tokens",
		"api-tokens", "enrollment", "keys", "authorities", "secrets", "audit", "settings", "schema", "workloads", "backups",
		"members?dialog=remove&of=1"} {
		b.open(page + "#/" + hash)
		if !strings.HasPrefix(hash, "peerings") && hash != "settings" && hash != "schema" {
			b.shows(hostile)
		}
		b.await(`document.querySelector("main h1")`)
		made := eval[int](b, `document.querySelectorAll("img, main script, iframe").length + (window.pwned ?? 0)`)
		if made != 0 {
			t.Errorf("%s: a text became HTML", hash)
		}
	}
	eval[bool](b, `(document.querySelector("dialog")?.close(), true)`)
	b.answer(`real`)
	c.result("DELETE", "/api/v1/cluster/secrets/db.password", "", nil)
}

// What the token may not do is not offered, and the page says what it would take.
func testUIScopes(t *testing.T, c *cluster, b *browser) {
	page := c.addrs[2] + "/ui/"
	var made struct{ Token string }
	c.result("POST", "/api/v1/api-tokens", `{"name": "reader `+hostile+`", "scopes": ["cluster:read"]}`, &made)
	b.open(page + "#/members")
	b.click("Sign out")
	b.await(`document.activeElement.id === "token"`)
	b.press(made.Token + "\r")
	b.shows("node-2")
	b.shows("Changing it takes the scope cluster:manage")
	b.shows("reader " + hostile + " cluster:read") // whoever is signed in is called so
	if n := eval[int](b, `document.querySelectorAll("img").length + (window.pwned ?? 0)`); n != 0 {
		t.Error("the name of a token became HTML")
	}
	n := eval[int](b, `[...document.querySelectorAll("main button")].filter((b) => /…$/.test(b.innerText)).length`)
	if n != 0 {
		t.Errorf("a token that may only read is offered %d actions", n)
	}
	for hash, scope := range map[string]string{"keys": "keys:manage", "api-tokens": "management", "backups": "management",
		"secrets": "keys:manage", "enrollment": "enroll", "peerings": "peering:read"} {
		b.open(page + "#/" + hash)
		b.shows("it takes the scope " + scope)
	}
	b.open(page + "#/overview")
	b.shows("The cluster can write")
	b.shows("http certificate")
	b.click("Sign out")
	b.await(`document.activeElement.id === "token"`)
	b.press(c.token + "\r")
	b.shows("The cluster can write")
	b.open(page + "#/members")
	b.await(control("Drain…"))
}

// reload reloads the page.
func (b *browser) reload() {
	b.t.Helper()
	eval[bool](b, `(window.old = true, true)`)
	b.must(chromedp.Do(b.ctx, chromedp.Reload()))
	b.await(fmt.Sprintf(`!window.old && document.readyState === %q`, "complete"))
}
