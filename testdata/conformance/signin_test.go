package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// provider runs a real OpenID provider, testdata/servers/op, with the cluster as its client, and makes people sign in
// there.
func provider(t *testing.T, c *cluster) (issuer string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "op")
	build := exec.Command("go", "build", "-o", path, "./op")
	build.Dir = "../servers"
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("there is no OpenID provider, it does not build: %v\n%s", err, out)
	}
	redirects := []string{"muster", "http://127.0.0.1/callback"}
	for _, addr := range c.addrs {
		redirects = append(redirects, addr+"/ui/")
	}
	op := exec.Command(path, redirects...)
	op.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := op.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	op.Stderr = &log
	if err := op.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = op.Process.Kill()
		_ = op.Wait()
		if t.Failed() {
			t.Logf("the provider said:\n%s", log.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	issuer = strings.TrimSpace(line)
	settings := map[string]any{"oidc.issuer": issuer, "oidc.client_id": "muster", "oidc.scopes": "groups",
		"oidc.rules": []any{
			map[string]any{"claim": "groups", "value": "ops", "scopes": []string{"management"}},
			map[string]any{"claim": "email", "value": "ada@example.org", "scopes": []string{"cluster:read"}},
		}}
	body, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	if code := c.result("PUT", "/api/v1/cluster/settings", string(body), nil); code != 200 {
		t.Fatalf("settings: %d", code)
	}
	return issuer
}

// TestSignIn: a person signs in at a real provider, in each of the three ways, at a member that does not lead.
func TestSignIn(t *testing.T) {
	c := start(t, 3)
	issuer := provider(t, c)
	for _, way := range []struct {
		name string
		f    func(*testing.T, *cluster, string)
	}{{"device", testDeviceFlow}, {"browser", testBrowserFlow}, {"page", testPageFlow}} {
		t.Run(way.name, func(t *testing.T) { c.t = t; way.f(t, c, issuer) })
	}
	c.t = t
	var audit struct {
		Entries []struct{ Action, Actor string }
	}
	c.result("GET", "/api/v1/audit?limit=1000", "", &audit)
	logins := 0
	for _, a := range audit.Entries {
		if a.Action == "api_token.login" && a.Actor == "ada@example.org" {
			logins++
		}
	}
	if logins != 3 {
		t.Errorf("the audit has %d sign-ins of ada: %+v", logins, audit)
	}
}

// login runs `muster login` and returns its lines on stderr, and what it prints in the end.
func login(t *testing.T, c *cluster, args ...string) (said *bufio.Scanner, done func() (token string, err error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary(t), append([]string{"login"}, args...)...)
	cmd.Env = append(os.Environ(), "MUSTER_ADDR="+c.addrs[2], "MUSTER_CACERT="+c.ca)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	r, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return bufio.NewScanner(r), func() (string, error) {
		rest, _ := io.ReadAll(r)
		if err := cmd.Wait(); err != nil {
			return "", fmt.Errorf("%w: %s", err, rest)
		}
		return strings.TrimSpace(stdout.String()), nil
	}
}

// after returns what the line that begins with a word says behind it.
func after(t *testing.T, said *bufio.Scanner, word string) string {
	t.Helper()
	var all []string
	for said.Scan() {
		if rest, ok := strings.CutPrefix(said.Text(), word); ok {
			return rest
		}
		all = append(all, said.Text())
	}
	t.Fatalf("no line begins with %q: %q", word, all)
	return ""
}

func is(t *testing.T, c *cluster, token string, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	admin := c.token
	defer func() { c.token = admin }()
	c.token = token
	var me struct {
		Name   string
		Scopes []string
	}
	if code := c.result("GET", "/api/v1/whoami", "", &me); code != 200 || me.Name != "ada@example.org" ||
		fmt.Sprint(me.Scopes) != "[management cluster:read]" && fmt.Sprint(me.Scopes) != "[cluster:read management]" {
		t.Errorf("%d: %+v", code, me)
	}
}

// arrives waits until a JavaScript expression is true on the page that the browser is on its way to; meanwhile there
// may be none.
func (b *browser) arrives(js string) {
	b.t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+js+")"))
		cancel()
		if err == nil && ok {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("the browser does not arrive where this is true: %s (%v)", js, err)
		}
	}
}

func (b *browser) reads(text string) {
	b.t.Helper()
	b.arrives(fmt.Sprintf("document.body?.innerText.includes(%q)", text))
}

func (b *browser) signInThere(fields string) {
	b.t.Helper()
	b.arrives(`document.querySelector("#username") && document.querySelector("#password")`)
	eval[bool](b,
		`(document.querySelector("#username").value = "ada", document.querySelector("#password").value = "lovelace", true)`)
	eval[bool](b, `(setTimeout(() => document.querySelector("`+fields+`").click(), 0), true)`)
}

func testDeviceFlow(t *testing.T, c *cluster, _ string) {
	said, done := login(t, c)
	to := after(t, said, "or open ")
	b := openBrowser(t, c.ca)
	b.open(to)
	b.signInThere("form button")
	b.reads("Welcome back ada!")
	eval[bool](b, `(setTimeout(() => document.querySelector("button.green").click(), 0), true)`)
	b.reads("Device authorization allowed")
	token, err := done()
	is(t, c, token, err)
}

func testBrowserFlow(t *testing.T, c *cluster, _ string) {
	said, done := login(t, c, "--browser")
	to := after(t, said, "open ")
	b := openBrowser(t, c.ca)
	b.open(to)
	b.signInThere("form button")
	b.reads("muster has your answer.")
	token, err := done()
	is(t, c, token, err)
}

// The page's button, with PKCE: the browser goes to the provider and comes back to the section that was open.
func testPageFlow(t *testing.T, c *cluster, issuer string) {
	b := openBrowser(t, c.ca)
	b.open(c.addrs[2] + "/ui/#/members")
	b.click("Sign in with " + strings.TrimPrefix(issuer, "http://"))
	b.signInThere("form button")
	b.arrives(`location.pathname === "/ui/" && location.hash === "#/members" && location.search === ""`)
	b.reads("node-3")
	b.reads("ada@example.org")
	b.mu.Lock()
	asked := strings.Join(b.urls, "\n")
	bad := strings.Join(b.bad, "\n")
	b.mu.Unlock()
	if !strings.Contains(asked, "code_challenge_method=S256") || strings.Contains(asked, "code_verifier") {
		t.Errorf("the browser went to\n%s", asked)
	}
	if bad != "" {
		t.Error(bad)
	}
	is(t, c, eval[string](b, `sessionStorage.getItem("muster-token")`), nil)
	if kept := eval[string](b, `JSON.stringify({...sessionStorage})`); strings.Contains(kept, "codeVerifier") {
		t.Error("the verifier is still kept")
	}
	// An answer that belongs to no sign-in, and one of a person who says no.
	b.click("Sign out")
	b.shows("API token")
	b.open(c.addrs[2] + "/ui/?code=x&state=y#/members")
	b.shows("belongs to no sign-in of this tab")
	b.await(`location.search === ""`)
}
