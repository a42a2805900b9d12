package conformance

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a headless Chromium with one tab. It notes every request and everything that the page should not do.
type browser struct {
	t    *testing.T
	ctx  context.Context
	mu   sync.Mutex
	urls []string
	bad  []string // violations of the policy, exceptions
	size float64  // bytes of all answers, with headers
	stop []func() // what else ends with it
}

// spki is what Chromium calls the fingerprint of the key of a CA, whose certificates alone it accepts for the test.
func spki(t *testing.T, file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func openBrowser(t *testing.T, ca string) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("there is no chromium: run scripts/setup.sh test first")
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("lang", "en-US"),
		chromedp.Flag("ignore-certificate-errors-spki-list", spki(t, ca)))...)
	ctx, cancel := chromedp.NewContext(alloc)
	b := &browser{t: t, ctx: ctx}
	t.Cleanup(func() {
		for _, f := range b.stop {
			f()
		}
		_ = chromedp.Cancel(ctx) // waits until the process has gone
		cancel()
		stop()
	})
	b.must(chromedp.Listen(ctx, b.note))
	for _, enable := range []chromedp.Action[chromedp.Void]{
		chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
			_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
			return err
		}),
		chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
			_, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
				Source: `new MutationObserver(() => {
						if (!window.usable && document.querySelector(".headline, tbody tr")) window.usable = performance.now();
					}).observe(document, { childList: true, subtree: true });
					new PerformanceObserver((list) => {
						window.slow = Math.max(window.slow ?? 0, ...list.getEntries().map((e) => e.duration));
					}).observe({ type: "longtask" });
					addEventListener("securitypolicyviolation", (e) =>
						console.error("policy violated: " + e.violatedDirective + " " + e.blockedURI))`})
			return err
		}),
	} {
		b.must(chromedp.Do(ctx, enable))
	}
	return b
}

func (b *browser) note(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.urls = append(b.urls, ev.Request.URL)
	case *network.EventLoadingFinished:
		b.size += ev.EncodedDataLength
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if ev.ExceptionDetails.Exception != nil {
			text += " " + ev.ExceptionDetails.Exception.Description
		}
		b.bad = append(b.bad, text)
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError {
			for _, a := range ev.Args {
				b.bad = append(b.bad, string(a.Value)+" "+a.Description)
			}
		}
	case *log.EventEntryAdded:
		// a refusal is no fault of the page
		if ev.Entry.Source != log.EntrySourceNetwork && ev.Entry.Level == log.EntryLevelError {
			b.bad = append(b.bad, ev.Entry.Text)
		}
	}
}

func (b *browser) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.must(chromedp.Do(b.ctx, chromedp.Navigate(url)))
}

// eval computes a JavaScript expression.
func eval[T any](b *browser, js string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js))
	if err != nil {
		b.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// await waits until a JavaScript expression is true.
func (b *browser) await(js string) {
	b.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !eval[bool](b, "Boolean("+js+")") {
		if time.Now().After(deadline) {
			b.t.Fatalf("this did not come true: %s\nthe page shows:\n%s", js, eval[string](b, "document.body.innerText"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// shows waits until a text can be read, within the dialog when there is one.
func (b *browser) shows(text string) {
	b.t.Helper()
	b.await(fmt.Sprintf(`(document.querySelector("dialog") ?? document.body).innerText.includes(%q)`, text))
}

// control is the expression of the button or link with a text, within the dialog when there is one.
func control(text string) string {
	return fmt.Sprintf(`[...(document.querySelector("dialog") ?? document).querySelectorAll("button, a")].find((b) => `+
		`b.innerText.trim() === %q && b.checkVisibility())`, text)
}

func (b *browser) click(text string) {
	b.t.Helper()
	b.await(control(text) + "?.disabled === false || " + control(text) + "?.href")
	eval[bool](b, "("+control(text)+".click(), true)")
}

// fill types into the field with a label.
func (b *browser) fill(label, text string) {
	b.t.Helper()
	field := fmt.Sprintf(`[...(document.querySelector("dialog") ?? document).querySelectorAll("label")].find((l) => `+
		`l.innerText.trim() === %q)?.control`, label)
	b.await(field)
	eval[bool](b, "("+field+".focus(), "+field+".select?.(), true)")
	b.must(chromedp.Do(b.ctx, chromedp.KeyEvent(text)))
}

// answer puts a function in the place of the page's fetch, until the page is reloaded; real is what it replaces.
func (b *browser) answer(js string) {
	b.t.Helper()
	eval[bool](b, `(() => { const real = window.real ??= window.fetch.bind(window); window.fetch = `+js+
		`; return true; })()`)
}

func (b *browser) press(key string) {
	b.t.Helper()
	b.must(chromedp.Do(b.ctx, chromedp.KeyEvent(key)))
}

// behaved fails the test if the page has talked to somebody else, broken its policy or thrown.
func (b *browser) behaved(addr string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.urls {
		if !strings.HasPrefix(u, addr+"/") && !strings.HasPrefix(u, "data:") { // the browser draws its own controls from data
			b.t.Errorf("a request left the member: %s", u)
		}
		if strings.Contains(u, "token=") {
			b.t.Errorf("a token in an address: %s", u)
		}
	}
	for _, s := range b.bad {
		b.t.Errorf("the page: %s", s)
	}
}

// share opens another tab: it is signed in too, and signed out with this one.
func (b *browser) share(addr string) {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	defer cancel()
	other := &browser{t: b.t, ctx: ctx}
	other.open(addr + "/ui/#/members")
	other.shows("node-2")
	other.must(chromedp.Cancel(ctx))
}

// shoot writes a picture of the whole page into the directory that the variable SCREENSHOTS names, if it does. Those of
// docs/page are made so.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	time.Sleep(time.Second)                                       // let the page load what it shows
	data, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(85)) // below 100 it is a JPEG
	b.must(err)
	b.must(os.WriteFile(filepath.Join(dir, name+".jpg"), data, 0o600))
}
