package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// No section scrolls sideways, on a telephone or a wide screen, in light or dark.
func testUILayout(t *testing.T, c *cluster, b *browser) {
	for _, scheme := range []string{"light", "dark"} {
		_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia,
			emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme},
				{Name: "prefers-reduced-motion", Value: "reduce"}}})
		b.must(err)
		bright := eval[int](b, `Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0])`)
		if dark := bright < 128; dark != (scheme == "dark") {
			t.Errorf("%s: the page has a background of brightness %d", scheme, bright)
		}
		for _, width := range []int64{320, 375, 1280} {
			b.must(chromedp.Do(b.ctx, chromedp.EmulateViewport(width, 800)))
			for _, hash := range []string{"overview", "members", "members/1", "raft", "autopilot", "peerings", "join-tokens",
				"api-tokens", "enrollment", "keys", "authorities",
				"secrets", "events", "audit", "backups", "settings", "schema"} {
				b.open(c.addrs[2] + "/ui/#/" + hash)
				b.await(`document.querySelector("main h1")`)
				b.await(`document.querySelector("main .table, main .facts, main .card, main .note:not([hidden])")`)
				if over := eval[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
					t.Errorf("%s, %d px wide, %s: %d px too wide", hash, width, scheme, over)
				}
				b.shoot(fmt.Sprintf("%s-%d-%s", strings.ReplaceAll(hash, "/", "-"), width, scheme))
			}
		}
	}
	b.must(chromedp.Do(b.ctx, chromedp.EmulateViewport(320, 700)))
	b.open(c.addrs[2] + "/ui/#/members")
	b.await(`document.querySelectorAll("tbody tr").length === 3`)
	if high := eval[int](b,
		`Math.max(...[...document.querySelectorAll("tbody tr")].map((tr) => tr.offsetHeight))`); high > 90 {
		t.Errorf("a member takes %d px on a telephone", high)
	}
	b.open(c.addrs[2] + "/ui/#/members/1")
	b.click("Drain…")
	if over := eval[int](b,
		`(() => { const r = document.querySelector("dialog").getBoundingClientRect(); return Math.ceil(Math.max(-r.left, `+
			`r.right - innerWidth)); })()`); over > 0 {
		t.Errorf("the dialog is %d px too wide for 320 px", over)
	}
	b.click("Cancel")
	b.click("Menu")
	b.await(`document.querySelector("#menu").getAttribute("aria-expanded") === "true"`)
	b.click("Keys")
	b.await(`location.hash === "#/keys" && !document.querySelector("nav").checkVisibility()`)
	b.must(chromedp.Do(b.ctx, chromedp.EmulateViewport(1280, 800)))
}

// Without a connection the page says so, keeps what it had, and goes on by itself.
func testUIConnection(t *testing.T, c *cluster, b *browser) {
	b.open(c.addrs[2] + "/ui/#/members")
	b.shows("node-2")
	offline := func(on bool) {
		_, err := chromedp.Call(b.ctx, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
			MatchedNetworkConditions: []*network.Conditions{{Offline: on, DownloadThroughput: -1, UploadThroughput: -1}}})
		b.must(err)
	}
	offline(true)
	b.shows("No connection to this member.")
	b.shows("Shown as it was")
	b.shows("node-2")
	offline(false)
	b.await(`document.querySelector("#banner").hidden && !document.querySelector(".stale")`)

	// A member that has lost its leader answers like this.
	b.answer(`(url) => url.startsWith("/api/v1/status")
		? real(url).then((r) => r.json()).then((s) => {
			s.result.cluster.leaderNodeId = 0;
			return new Response(JSON.stringify(s));
		})
		: Promise.resolve(new Response('{"error":"no cluster leader: raft commit timeout"}', { status: 503 }))`)
	b.shows("There is no leader")
	b.shows("no cluster leader: raft commit timeout. Shown as it was")
	b.shows("node-2")
	b.answer(`real`)
	b.await(`document.querySelector("#banner").hidden && !document.querySelector(".stale")`)
}

// Ten thousand members are shown a page at a time, and any of them is found.
func testUIMany(_ *testing.T, c *cluster, b *browser) {
	b.answer(
		`(url, o) => (window.made ??= {})[url] 
		? Promise.resolve(new Response(made[url]))
		: real(url, o).then((r) => r.json()).then((body) => {
		const many = (list) => Array.from({ length: 10000 }, (_, i) => ({
			...list[0], isLeader: false, nodeId: i + 1, name: "many-" + (i + 1),
		}));
		if (url === "/api/v1/cluster/members") body.result = many(body.result);
		if (url === "/api/v1/cluster/autopilot") body.result.servers = many(body.result.servers);
		if (url.startsWith("/api/v1/cluster/certificates")) {
			body.result = Array.from({ length: 20000 }, (_, i) => ({ ...body.result[0], serial: String(i), node: "many-" + i }));
		}
		const text = JSON.stringify(body);
		if (text.length > 100_000) made[url] = text; // making it must not count
		return new Response(text);
	})`)
	for _, hash := range []string{"overview", "authorities", "autopilot"} {
		b.open(c.addrs[2] + "/ui/#/" + hash)
		b.await(`document.querySelector("main .card, main tbody tr, main .facts")`)
		eval[bool](b, `(window.slow = 0, window.begun = performance.now(), true)`)
		b.await(`performance.now() - begun > 3000`) // what it does while nobody does anything
		b.t.Logf("%s of 10000 members: nothing takes longer than %.0f ms while it is looked at", hash,
			eval[float64](b, `window.slow`))
		eval[bool](b, `(window.slow = 0, true)`)
		eval[bool](b,
			`(() => { let at = 0; window.scrolled = false; const step = () => { scrollTo(0, at += 100); if (at < 6000) `+
				`requestAnimationFrame(step); else window.scrolled = true; }; step(); return true; })()`)
		b.await(`window.scrolled`)
		b.t.Logf("%s of 10000 members: nothing takes longer than %.0f ms while it is scrolled", hash,
			eval[float64](b, `window.slow ?? 0`))
	}
	b.open(c.addrs[2] + "/ui/#/members")
	b.shows("1–50 of 10000")
	b.await(`document.querySelectorAll("tbody tr").length === 50`)
	b.click("Next")
	b.shows("51–100 of 10000")
	b.fill("Find", "many-9876")
	b.shows("1 of 10000 members")
	b.await(`document.querySelectorAll("tbody tr").length === 1 && ` +
		`document.querySelector("tbody").innerText.includes("node 9876")`)
	for _, s := range [][2]string{{"shown again", `find.value = "", find.dispatchEvent(new Event("input"))`},
		{"sorted", `document.querySelector("th button").click()`},
		{"filtered", `find.value = "many-98", find.dispatchEvent(new Event("input"))`}} {
		what, act := s[0], s[1]
		took := eval[float64](b, `(() => { const find = document.querySelector("#find"), begin = performance.now(); `+act+
			`; document.body.offsetHeight; return performance.now() - begin; })()`)
		b.t.Logf("10000 members are %s in %.0f ms", what, took)
	}
	eval[bool](b,
		`(() => { const find = document.querySelector("#find"); find.value = ""; find.dispatchEvent(new Event("input")); `+
			`window.slow = 0; return true; })()`)
	eval[bool](b,
		`(() => { let at = 0; const step = () => { scrollTo(0, at += 200); if (at < 6000) requestAnimationFrame(step); `+
			`else window.scrolled = true; }; step(); return true; })()`)
	b.await(`window.scrolled`)
	b.t.Logf("while they are scrolled through, nothing takes longer than %.0f ms", eval[float64](b, `window.slow ?? 0`))
	b.answer(`real`)
}

func testUISignOut(_ *testing.T, c *cluster, b *browser) {
	b.click("Sign out")
	b.shows("API token")
	b.await(`sessionStorage.length === 0 && !document.body.innerText.includes("node-2")`)

	// Without a leader one can sign in all the same, and see what this member knows.
	b.answer(`(url, o) => url.startsWith("/api/v1/status") || url.includes("stale") ? real(url, o)
		: Promise.resolve(new Response('{"error":"no cluster leader: raft commit timeout"}', { status: 503 }))`)
	b.press("not-a-token\r")
	b.shows("The cluster does not know this token.")
	b.press(c.token + "\r")
	b.click("Raft")
	b.shows("This is what this member knows itself")
	b.shows("node-2")
	b.click("Audit")
	b.shows("This is what this member knows itself")
	b.shows("The leader does not answer.")
	b.shows("member.join")
	b.answer(`real`)
	b.click("Sign out")
	b.await(`sessionStorage.length === 0`)
}
