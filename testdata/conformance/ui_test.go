package conformance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What would run if any of it became HTML.
const hostile = `<img src=x onerror=window.pwned=1>`

// The web page in a real browser, on a member that does not lead.
func TestWebPage(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	addr := c.addrs[2]
	c.eventually("the first member leads", func() error {
		var status struct{ Cluster struct{ LeaderNodeID int } }
		if c.result("GET", "/api/v1/status", "", &status); status.Cluster.LeaderNodeID != 1 {
			return fmt.Errorf("%+v", status)
		}
		return nil
	})
	b := openBrowser(t, c.ca)
	t.Run("files", func(t *testing.T) { testUIFiles(t, c, addr) })
	for _, s := range []struct {
		name string
		f    func(*testing.T, *cluster, *browser)
	}{
		{"sign in", testUISignIn}, {"drain and resume", testUIDrain}, {"join", testUIJoin}, {"remove", testUIRemove},
		{"sections", testUISections}, {"events", testUIEvents}, {"tokens and authorities", testUIAuthorities},
		{"many members", testUIMany}, {"address", testUIAddress}, {"hostile", testUIHostile}, {"scopes", testUIScopes},
		{"layout", testUILayout}, {"connection", testUIConnection}, {"sign out", testUISignOut},
		{"faults", testUIFaults},
	} {
		if !t.Run(s.name, func(t *testing.T) { b.t, c.t = t, t; s.f(t, c, b) }) {
			break
		}
	}
	b.t, c.t = t, t
	b.behaved(addr)
}

func testUIFiles(t *testing.T, c *cluster, addr string) {
	client := &http.Client{Transport: c.http.Transport, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := func(path string, header ...string) (*http.Response, string) {
		r, err := http.NewRequestWithContext(context.Background(), "GET", addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	const browserAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for _, x := range []struct {
		path, accept string
		status       int
		location     string
	}{
		{"/", browserAccept, 302, "/ui/"},
		{"/ui", browserAccept, 308, "/ui/"},
		{"/ui/", browserAccept, 200, ""},
		{"/ui/app.js", "*/*", 200, ""},
		{"/ui/nothing", "*/*", 404, ""},
		{"/ui/a/b", "*/*", 404, ""},
		{"/ui/..%2fui.go", "*/*", 404, ""},
	} {
		resp, body := get(x.path, "Accept", x.accept)
		if resp.StatusCode != x.status || resp.Header.Get("Location") != x.location {
			t.Errorf("%s: %s to %q, want %d to %q", x.path, resp.Status, resp.Header.Get("Location"), x.status, x.location)
		}
		if x.status == 404 && (!strings.Contains(body, "<h1>Not Found</h1>") ||
			!strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")) {
			t.Errorf("%s is not told in the page's own way: %s", x.path, body)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
				"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", x.path, name, got, want)
			}
		}
	}
	for _, accept := range []string{"", "*/*", "application/json", "application/json, text/html",
		"application/vnd.elasticsearch+json;compatible-with=8"} {
		if resp, _ := get("/", "Accept", accept); resp.StatusCode == 302 {
			t.Errorf("a client that accepts %q is sent to the page", accept)
		}
	}
	for path, kind := range map[string]string{"/ui/": "text/html; charset=utf-8",
		"/ui/app.js": "text/javascript; charset=utf-8", "/ui/style.css": "text/css; charset=utf-8",
		"/ui/icon.svg": "image/svg+xml"} {
		resp, body := get(path)
		if resp.Header.Get("Content-Type") != kind {
			t.Errorf("%s is %q", path, resp.Header.Get("Content-Type"))
		}
		if again, _ := get(path, "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != 304 {
			t.Errorf("%s with its tag %q: %s", path, resp.Header.Get("ETag"), again.Status)
		}
		if regexp.MustCompile(`https?://`).MatchString(strings.ReplaceAll(body, "http://www.w3.org/2000/svg", "")) {
			t.Errorf("%s names another host", path)
		}
	}
}

func testUISignIn(t *testing.T, c *cluster, b *browser) {
	b.open(c.addrs[2] + "/")
	b.await(`location.pathname === "/ui/"`)
	b.shows("API token")
	b.mu.Lock()
	size := b.size
	b.mu.Unlock()
	t.Logf("the first view takes %.1f kB", size/1000)
	if size > 200_000 {
		t.Errorf("the first view takes %.0f bytes", size)
	}
	b.await(`document.activeElement.id === "token"`) // nothing but the keyboard from here
	b.press("not-a-token\r")
	b.shows("The cluster does not know this token.")
	b.await(`document.activeElement.id === "token" && sessionStorage.length === 0`)
	b.press(c.token + "\r")
	b.shows("The cluster can write")
	b.shows("It survives the loss of any one voter")
	b.await(`document.querySelectorAll(".strips li").length === 3 && document.querySelector(".news li")`)
	b.reload()
	b.await(`window.usable`)
	t.Logf("the page is usable after %.0f ms", eval[float64](b, `window.usable`))
	b.open(c.addrs[2] + "/ui/#/members")
	for i := range 3 {
		b.shows(fmt.Sprintf("node-%d", i+1))
	}
	b.shows("leader, voter: 1 of 3") // autopilot's reason
	b.share(c.addrs[2])
	if kept := eval[string](b, `JSON.stringify({...sessionStorage})`); !strings.Contains(kept, c.token) {
		t.Error("the token is not kept for the tab")
	}
	if kept := eval[string](b,
		`JSON.stringify({...localStorage}) + document.cookie + location.href + document.body.outerHTML`); strings.Contains(
		kept, c.token) {
		t.Error("the token is kept beyond the tab, or can be read in the page")
	}
}

func testUIDrain(t *testing.T, c *cluster, b *browser) {
	c.result("PUT", "/api/v1/cluster/leases/session-7", `{"nodeId": 3, "ttlSeconds": 600, "kind": "session"}`, nil)
	b.open(c.addrs[2] + "/ui/#/members/3")
	b.shows("session-7")
	b.click("Drain…")
	b.await(`document.querySelector("dialog").matches(":modal") && document.activeElement.closest("dialog")`)
	b.shows("muster member drain 3 --deadline 60s")
	b.fill("Deadline in seconds", "4000")
	b.click("Drain")
	b.shows("must be less than or equal to 3600")
	b.fill("Deadline in seconds", "90")
	b.shows("muster member drain 3 --deadline 90s")
	b.click("Drain")
	b.await(`!document.querySelector("dialog")`)
	b.shows("Drain under way")
	b.await(`document.querySelector(".count")?.innerText === "1"`)
	c.result("DELETE", "/api/v1/cluster/leases/session-7", "", nil)
	b.await(`document.querySelector(".panel h2")?.innerText === "Drained" && document.querySelector(".count").innerText ` +
		`=== "0"`)
	b.click("Resume…")
	b.shows("muster member resume 3")
	b.click("Resume")
	b.await(control("Drain…"))
}

func testUIJoin(t *testing.T, c *cluster, b *browser) {
	b.open(c.addrs[2] + "/ui/#/join-tokens")
	b.click("Create a join token…")
	b.fill("Labels", "note="+hostile)
	b.shows(`muster join-token create --label 'note=` + hostile + `'`)
	b.fill("Only from the prefix", "10.0.0.1/8")
	b.click("Create")
	b.shows("bindCidr must be a prefix such as 10.0.0.0/8") // the server's own words
	b.fill("Only from the prefix", "127.0.0.0/8")
	b.click("Create")
	b.shows("The token is shown this once.")
	line := eval[string](b, `document.querySelector("dialog .copy code").innerText`)
	fields := strings.Fields(line)
	if len(fields) != 6 || strings.Join(fields[:5], " ") != "muster serve --data DIR --join" {
		t.Fatalf("the line for the new machine is %q", line)
	}
	kept := fmt.Sprintf(`document.querySelector("dialog")?.innerText.includes(%q)`, fields[5])
	eval[bool](b, `(history.back(), true)`) // neither a slip of the hand nor another address takes it away
	b.shows("It is shown once. Press Done to go on.")
	b.press("\x1b")
	b.press("\x1b")
	b.open(c.addrs[2] + "/ui/#/keys")
	b.await(`document.querySelector("main h1")?.innerText === "Keys"`)
	b.await(kept)
	b.open(c.addrs[2] + "/ui/#/join-tokens")
	b.await(kept)
	b.click("Done")
	b.await(`!document.querySelector("dialog")`)
	b.await(fmt.Sprintf(`!document.body.innerText.includes(%q)`, fields[5]))

	// The fourth member, by the line that was shown.
	base := ports(t, 2)
	cmd := exec.Command(binary(t), "serve", "--data", filepath.Join(c.dir, "4"), "--join", fields[5], "--name", hostile,
		"--api", fmt.Sprintf("127.0.0.1:%d", base), "--raft", fmt.Sprintf("127.0.0.1:%d", base+1))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.stop = append(b.stop, func() {
		_ = cmd.Process.Signal(os.Interrupt)
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
	})
	b.await(`document.querySelector("tbody").innerText.includes("node 4")`)
	b.open(c.addrs[2] + "/ui/#/members")
	b.shows("4 members")
	for _, where := range []string{"#/members", "#/members/4", "#/events", "#/audit", "#/join-tokens"} {
		b.open(c.addrs[2] + "/ui/" + where)
		if where == "#/members" || where == "#/members/4" {
			b.shows(hostile)
			b.shows("note=" + hostile)
		}
		if n := eval[int](b, `document.querySelectorAll("img, main script, iframe").length + (window.pwned ?? 0)`); n != 0 {
			t.Errorf("%s: a label or name became HTML", where)
		}
	}

	b.open(c.addrs[2] + "/ui/#/join-tokens")
	c.result("POST", "/api/v1/cluster/join-tokens", `{"maxUses": 7}`, nil)
	b.shows("0 of 7")
	b.click("Revoke…")
	b.shows("muster join-token revoke")
	b.press("\x1b") // Escape changes nothing
	b.await(`!document.querySelector("dialog")`)
	b.click("Revoke…")
	b.click("Revoke")
	b.await(`document.querySelector("tbody").innerText.includes("revoked")`)
}

func testUIRemove(t *testing.T, c *cluster, b *browser) {
	b.open(c.addrs[2] + "/ui/#/members/4")
	b.click("Remove…")
	b.shows("muster member remove 4")
	b.await(control("Remove for good") + ".disabled")
	b.fill("Type "+hostile+" to confirm", "4")
	b.await(control("Remove for good") + ".disabled")
	b.fill("Type "+hostile+" to confirm", hostile)
	b.click("Remove for good")
	b.shows("Node is not drained (state=active)")
	eval[bool](b, `(document.querySelector("dialog input[type=checkbox]").click(), true)`)
	b.shows("muster member remove 4 --force")
	b.click("Remove for good")
	b.await(`location.hash === "#/members"`)
	b.await(`document.querySelector("tbody tr") && !document.querySelector("tbody").innerText.includes("node 4")`)
}

// Sections are either there or say plainly that this member does not have them.
func testUISections(t *testing.T, c *cluster, b *browser) {
	for hash, texts := range map[string][]string{
		"keys":      {"Generation", "active", "Members that hold it"},
		"raft":      {"node-1", "Raft agrees with the members table.", "Applied index", "This member"},
		"autopilot": {"leader, voter: 1 of 3", "Stabilization"}, "schema": {"up to date"}, "settings": {"audit.max_age"},
		"api-tokens": {"admin", "management"}, "secrets": {"There are no secrets."},
		"workloads":  {"No workload is registered."},
		"backups":    {"There is none yet.", "No interval is set"},
		"enrollment": {"Enrollment tokens"}, "peerings": {"Peerings"}, "authorities": {"Certificates in use"},
		"events": {"Events"}, "audit": {"Audit"},
	} {
		b.open(c.addrs[2] + "/ui/#/" + hash)
		for _, text := range texts {
			b.shows(text)
		}
		b.await(`document.querySelector("main h1") && document.querySelector("nav [aria-current=page]") && ` +
			`document.title.endsWith("– muster")`)
		b.await(`document.querySelector("main .table:has(tr), main .table .empty:not([hidden]), main .facts") || /not ` +
			`available on this member/.test(document.querySelector("main").innerText)`)
	}
	b.open(c.addrs[2] + "/ui/#/keys")
	b.click("Skip to content")
	b.await(`location.hash === "#/keys" && document.activeElement.id === "main"`)
	b.click("Rotate…")
	b.shows("muster key rotate")
	b.click("Rotate")
	b.await(`!document.querySelector("dialog")`)
	b.shows("on demand")
	b.open(c.addrs[2] + "/ui/#/members/2")
	b.click("Make it leader…")
	b.shows("muster raft transfer 2")
	b.click("Transfer leadership")
	b.await(`document.querySelector("main h1 .tag")?.innerText === "leader"`)
}

// Events come as they happen; a stream that breaks off is resumed behind the last event, and nothing is shown twice.
func testUIEvents(t *testing.T, c *cluster, b *browser) {
	b.open(c.addrs[2] + "/ui/#/keys")
	eval[bool](b, `(window.asked = [], true)`)
	b.answer(`(url, o) => {
		if (!url.startsWith("/api/v1/events")) return real(url, o);
		asked.push([o.headers["Last-Event-ID"] ?? "", o.headers.Authorization.startsWith("Bearer ")]);
		const made = {
			revision: 5, seq: 99, at: "2030-01-02T03:04:05Z", type: "token", action: "made.up", object: "x", actor: "y", node: 1,
			outcome: "ok",
		};
		return asked.length > 1
			? real(url, o)
			: Promise.resolve(new Response("id: 5.99\nevent: token\ndata: " + JSON.stringify(made) + "\n\n"));
	}`)
	b.open(c.addrs[2] + "/ui/#/events")
	b.shows("made.up")
	b.await(`asked.length > 1 && asked[1][0] === "5.99" && asked[1][1]`)
	b.shows("Live")
	c.result("PUT", "/api/v1/cluster/leases/"+`%3Cimg%20src=x%20onerror=window.pwned=1%3E`,
		`{"nodeId": 1, "ttlSeconds": 600}`, nil)
	b.shows("lease/" + hostile)
	if n := eval[int](b,
		`(() => { const seen = [...document.querySelectorAll("tbody tr td:last-child")].map((td) => td.innerText); return `+
			`seen.length - new Set(seen).size; })()`); n != 0 {
		t.Errorf("%d events are shown twice", n)
	}
	b.open(c.addrs[2] + "/ui/#/audit")
	b.fill("What begins with", "lease.")
	b.await(`document.querySelectorAll("tbody tr").length > 0 && [...document.querySelectorAll("tbody tr")].every((tr) ` +
		`=> tr.innerText.includes("lease."))`)
}

func testUIAuthorities(_ *testing.T, c *cluster, b *browser) {
	b.open(c.addrs[2] + "/ui/#/authorities")
	b.shows("Transport CA")
	b.click("Rotate…")
	b.shows("muster ca rotate --kind http --overlap 24h --dry-run")
	b.click("Rotate")
	b.shows("Nothing was changed.")
	b.await(`document.querySelectorAll("dialog ol li").length > 0`)
	b.click("Done")

	// The transport CA is rotated for good, to the end. (The browser knows the key of the other one.)
	b.await(`!document.querySelector("dialog")`)
	eval[bool](b,
		`([...document.querySelectorAll(".authority")].find((s) => s.innerText.startsWith("Transport `+
			`CA")).querySelector("button").click(), true)`)
	eval[bool](b, `(document.querySelector("dialog input[type=checkbox]").click(), true)`)
	b.await(`document.querySelector("dialog .command code").innerText === "muster ca rotate --kind transport --overlap ` +
		`24h"`)
	b.click("Rotate")
	b.shows("Under way:")
	b.click("Done")
	b.shows("Rotation under way")
	b.await(`document.querySelector(".phases [aria-current=step]")?.innerText.startsWith("both are trusted")`)
	b.click("Drop the old one now…")
	b.shows("muster ca rotate --kind transport --drop")
	b.click("Drop the old CA")
	b.shows("Under way:")
	b.click("Done")
	b.await(`!document.querySelector(".panel")`)
	b.open(c.addrs[2] + "/ui/#/enrollment")
	b.click("Create an enrollment token…")
	b.fill("Name", "es-7")
	b.shows("muster enroll-token create --name es-7")
	b.click("Create")
	b.shows("The token is shown this once.")
	b.click("Done")
	b.shows("es-7")
	b.click("Revoke…")
	b.click("Revoke")
	b.await(`document.querySelector("tbody").innerText.includes("revoked")`)
}
