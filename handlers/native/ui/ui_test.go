package ui

import (
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// Browsers are sent to the page, and clients of the API families are not.
func TestWantsPage(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": false, "application/json": false, "application/json, text/html": false,
		"text/html;q=0.4, application/json;q=0.6": false, "text/html;q=0": false,
		"text/html": true, "text/html, */*;q=0.1": true, "text/html;q=0.9,application/json;q=0.2": true,
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8," +
			"application/signed-exchange;v=b3;q=0.7": true,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		if got := wantsPage(r); got != want {
			t.Errorf("Accept %q: %v, want %v", accept, got, want)
		}
		if r.URL.Path = "/v1/peerings"; wantsPage(r) {
			t.Errorf("Accept %q: a path that is not the root", accept)
		}
	}
}

// What other products' command lines print leads to a section that there is, and nothing leads to another host.
func TestElsewhere(t *testing.T) {
	app := string(assets["app.js"].data)
	for name, want := range map[string]string{
		"servers": "members", "servers/node-1.global": "members", "clients/5b": "members", "jobs": "overview",
		"jobs/web/deployments": "overview", "settings/tokens": "api-tokens", "dc1/peers": "peerings",
		"dc1/peers/berlin": "peerings", "dc1/overview/server-status": "overview", "dc1/acls/tokens": "api-tokens",
		"style2.css": "", "dc1": "", "dc1/nothing": "", "": "", "/example.com": "", "https:/example.com": "",
	} {
		got := elsewhere(name)
		if got != want || got != "" && !strings.Contains(app, `["`+got+`", `) {
			t.Errorf("%q leads to %q", name, got)
		}
	}
}

// The page is small, complete, and holds nothing that its policy would block or that could turn a value into HTML.
func TestAssets(t *testing.T) {
	for name, a := range assets {
		if a.ctype == "" {
			t.Errorf("%s has no content type", name)
		}
		text := string(a.data)
		for i, line := range strings.Split(text, "\n") {
			if utf8.RuneCountInString(line) > 120 {
				t.Errorf("%s:%d has more than 120 characters", name, i+1)
			}
		}
		for _, m := range regexp.MustCompile(`(?:src|href)="([\w.]+)"|(?:from |import\()"\./([\w.]+)"`).FindAllStringSubmatch(
			text, -1) {
			if file := m[1] + m[2]; assets[file].data == nil {
				t.Errorf("%s names %s, which is not there", name, file)
			}
		}
		switch path.Ext(name) {
		case ".js":
			for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
				"new Function"} {
				if strings.Contains(text, bad) {
					t.Errorf("%s uses %s", name, bad)
				}
			}
		case ".html":
			if regexp.MustCompile(`<style|\sstyle=|\son\w+=|<script[^>]*>[^<]`).MatchString(text) {
				t.Errorf("%s has inline script or style", name)
			}
		}
	}
	if n := firstView(); n > 200_000 {
		t.Errorf("the first view has %d bytes", n)
	}
}

// firstView is how many bytes the page and the overview take, not compressed: what is imported later does not count.
func firstView() (bytes int) {
	seen := map[string]bool{}
	imports := regexp.MustCompile(`(?:src|href)="([\w.]+)"|from "\./([\w.]+)"`)
	var add func(name string)
	add = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		bytes += len(assets[name].data)
		for _, m := range imports.FindAllStringSubmatch(string(assets[name].data), -1) {
			add(m[1] + m[2])
		}
	}
	add("index.html")
	add("overview.js")
	return bytes
}
