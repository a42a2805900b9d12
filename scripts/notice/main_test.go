package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestNotice: NOTICE lists what is linked now: each module in its version, and no other.
func TestNotice(t *testing.T) {
	text, err := os.ReadFile("../../NOTICE")
	if err != nil {
		t.Fatal(err)
	}
	table, rest, found := strings.Cut(string(text), "\n====")
	if !found || len(rest) < 10_000 {
		t.Fatal("NOTICE has no texts")
	}
	var listed []string
	for line := range strings.Lines(table) {
		if name, _, ok := strings.Cut(line, ": "); ok && strings.Contains(name, "/") && strings.Contains(name, " v") {
			listed = append(listed, name)
		}
	}
	parts, err := modules()
	if err != nil {
		t.Fatal(err)
	}
	var linked []string
	for _, p := range parts {
		linked = append(linked, p.name+" "+p.version)
	}
	slices.Sort(listed)
	slices.Sort(linked)
	if !slices.Equal(listed, linked) {
		t.Errorf("NOTICE lists\n%s\nand linked is\n%s\nrun make notice", strings.Join(listed, "\n"),
			strings.Join(linked, "\n"))
	}
	for _, other := range []string{"dqlite", "libuv", "LZ4", "glibc", "SQLite", "Go's runtime"} {
		if !strings.Contains(table, other) {
			t.Errorf("NOTICE does not list %s", other)
		}
	}
}

// TestUnknownLicence: a module with a licence that nobody has looked at stops the program.
func TestUnknownLicence(t *testing.T) {
	if _, err := write([]part{{name: "a", texts: []string{"Do what you like on Tuesdays."}}}); err == nil {
		t.Error("it is taken")
	}
	text, err := write([]part{{name: "a", version: "v1", texts: []string{"x Apache License"}},
		{name: "b", texts: []string{"x Apache License"}}})
	if err != nil || strings.Count(text, "x Apache License") != 1 || !strings.Contains(text, "a v1: Apache-2.0") {
		t.Errorf("%v\n%s", err, text)
	}
}
