// Package ui serves the web page. It is a family of its own, whose errors are HTML.
package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"muster/handlers"
	"muster/store"
)

// uiFiles is the web page: plain files, without a build step. It uses the API like any other client.
//
//go:embed *.html *.css *.js *.svg
var uiFiles embed.FS

const uiPrefix = "/ui/"

// uiPolicy allows the page its own files and requests to its own member, nothing else: no inline script or style, no
// other host, no framing.
const uiPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// New returns the family of the web page.
func New() *handlers.Family {
	return &handlers.Family{
		Name:  "ui",
		Paths: []string{uiPrefix},
		Routes: []handlers.Route{
			{Method: "GET", Path: "/ui", At: handlers.Here, Serve: servePage},
			{Method: "GET", Path: uiPrefix, At: handlers.Here, Serve: servePage},
			{Method: "GET", Path: uiPrefix + "{file}", At: handlers.Here, Serve: servePage},
			{Method: "GET", Path: uiPrefix + "{file}/{more}", At: handlers.Here, Serve: servePage},
			{Method: "GET", Path: uiPrefix + "{file}/{more}/{rest}", At: handlers.Here, Serve: servePage},
		},
		Aside: &handlers.Aside{Method: http.MethodGet, Path: "/", Takes: wantsPage, Serve: toPage},

		Headers: func(w http.ResponseWriter) {
			h := w.Header()
			h.Set("Content-Security-Policy", uiPolicy)
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			h.Set("Cross-Origin-Resource-Policy", "same-origin")
			h.Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
		},
		Fail: func(w http.ResponseWriter, status int, _ store.Code, message string) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(status)
			_ = uiFailure.Execute(w, struct {
				Title, Message string
			}{http.StatusText(status), message})
		},
	}
}

var uiFailure = template.Must(template.New("failure").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Title}} – muster</title>
<link rel="icon" href="/ui/icon.svg">
<link rel="stylesheet" href="/ui/style.css">
<main class="alone">
<h1>{{.Title}}</h1>
<p>{{.Message}}.</p>
<p><a href="/ui/">Go to the cluster</a></p>
</main>
</html>
`))

// asset is a file of the page with its headers.
type asset struct {
	data  []byte
	ctype string
	etag  string
}

var assets = loadAssets()

func loadAssets() map[string]asset {
	// Media types must not depend on the machine's mime.types.
	types := map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
		".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	files, err := fs.ReadDir(uiFiles, ".")
	if err != nil {
		panic(err)
	}
	list := make(map[string]asset, len(files))
	for _, f := range files {
		data, err := uiFiles.ReadFile(f.Name())
		if err != nil {
			panic(err)
		}
		ctype := types[path.Ext(f.Name())]
		if ctype == "" {
			ctype = mime.TypeByExtension(path.Ext(f.Name()))
		}
		sum := sha256.Sum256(data)
		list[f.Name()] = asset{data, ctype, `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return list
}

// servePage serves a file of the page. Browsers cache it but revalidate it, so that after an upgrade all files of a
// view have the same version.
func servePage(q *handlers.Request) error {
	name := strings.TrimPrefix(q.URL.Path, uiPrefix)
	switch q.URL.Path {
	case strings.TrimSuffix(uiPrefix, "/"):
		http.Redirect(q.W, q.Request, uiPrefix, http.StatusPermanentRedirect)
		return nil
	case uiPrefix:
		name = "index.html"
	}
	a, ok := assets[name]
	if section := elsewhere(name); !ok && section != "" {
		q.W.Header().Set("Cache-Control", "no-store")
		http.Redirect(q.W, q.Request, uiPrefix+"#/"+section, http.StatusFound)
		return nil
	}
	if !ok {
		return handlers.Fail(http.StatusNotFound, "there is nothing at this path")
	}
	h := q.W.Header()
	h.Set("Content-Type", a.ctype)
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", a.etag)
	http.ServeContent(uncopied{q.W}, q.Request, "", time.Time{}, bytes.NewReader(a.data))
	return nil
}

// uncopied writes what is in memory without a buffer: callers that read slowly must not take memory for each request.
type uncopied struct{ http.ResponseWriter }

// ReadFrom writes the rest of a bytes.Reader, which http.ServeContent limits to its length.
func (w uncopied) ReadFrom(r io.Reader) (int64, error) {
	if limited, ok := r.(*io.LimitedReader); ok {
		if data, ok := limited.R.(*bytes.Reader); ok && int64(data.Len()) == limited.N {
			return data.WriteTo(w.ResponseWriter)
		}
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, r) // a range
}

// The command lines of Nomad and Consul print links to their own web pages. These paths redirect to the section with
// the same subject.
var (
	nomadPages = map[string]string{"servers": "members", "clients": "members", "topology": "members", "jobs": "overview",
		"evaluations": "overview", "allocations": "overview", "operations": "autopilot", "settings": "api-tokens",
		"administration": "api-tokens"}
	consulPages = map[string]string{"peers": "peerings", "nodes": "members", "services": "members", "acls": "api-tokens",
		"overview": "overview", "kv": "secrets", "intentions": "overview"} // below the name of a datacenter
)

// elsewhere returns the section for a path of another product's page, or "".
func elsewhere(name string) string {
	first, rest, deeper := strings.Cut(name, "/")
	if section := nomadPages[first]; section != "" || !deeper {
		return section
	}
	second, _, _ := strings.Cut(rest, "/")
	return consulPages[second]
}

// wantsPage reports whether a request for / comes from a browser: its Accept prefers HTML. Clients of the API families,
// which accept anything or JSON, get their family's answer.
func wantsPage(r *http.Request) bool {
	if r.URL.Path != "/" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	html, other := 0.0, 0.0
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		kind, parameters, _ := strings.Cut(part, ";")
		weight := 1.0
		for p := range strings.SplitSeq(parameters, ";") {
			if v, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
				weight, _ = strconv.ParseFloat(v, 64)
			}
		}
		switch kind = strings.ToLower(strings.TrimSpace(kind)); {
		case kind == "text/html":
			html = weight
		case strings.HasSuffix(kind, "/xml"), strings.HasSuffix(kind, "+xml"), strings.HasPrefix(kind,
			"image/"), kind == "*/*": // browsers accept these as well
		default:
			other = max(other, weight)
		}
	}
	return html > 0 && html > other
}

// toPage redirects browsers from / to the page.
func toPage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Vary", "Accept")
	http.Redirect(w, r, uiPrefix, http.StatusFound)
}
