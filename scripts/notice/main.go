// Command notice writes NOTICE: the licences of everything that is linked into muster. It asks go list for the modules
// and reads their licences from the module cache; those of the C libraries come from their Debian packages and from
// dqlite's source. It writes the same list as a bill of materials, too.
//
//	go run ./scripts/notice NOTICE
//	go run ./scripts/notice -sbom VERSION FILE
package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// part is something that is linked.
type part struct {
	name, version string
	dir           string // of a module
	texts         []string
	licence       string
}

func main() {
	write, args := notice, os.Args[1:]
	if len(args) == 3 && args[0] == "-sbom" {
		version := args[1]
		write, args = func() (string, error) { return sbom(version) }, args[2:]
	}
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: notice [-sbom VERSION] FILE")
		os.Exit(2)
	}
	text, err := write()
	if err == nil {
		err = os.WriteFile(args[0], []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "notice:", err)
		os.Exit(1)
	}
}

func notice() (string, error) {
	parts, err := linked()
	if err != nil {
		return "", err
	}
	return write(parts)
}

// linked lists everything that is linked, with its licences.
func linked() ([]part, error) {
	parts, err := modules()
	if err != nil {
		return nil, err
	}
	for i := range parts {
		if parts[i].texts, err = licencesIn(parts[i].dir); err != nil {
			return nil, fmt.Errorf("%s: %w", parts[i].name, err)
		}
	}
	others, err := libraries()
	return append(others, parts...), err
}

// modules lists the Go modules of which packages are linked.
func modules() (parts []part, err error) {
	cmd := exec.Command("go", "list", "-deps", "-f",
		"{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}", "muster")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	lines := slices.Sorted(strings.Lines(string(out)))
	for _, line := range slices.Compact(lines) {
		if f := strings.Fields(line); len(f) == 3 {
			parts = append(parts, part{name: f[0], version: f[1], dir: f[2]})
		}
	}
	return parts, nil
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)`)

func licencesIn(dir string) (texts []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		texts = append(texts, string(text))
	}
	if len(texts) == 0 {
		return nil, errors.New("it has no licence")
	}
	return texts, nil
}

// libraries lists what is linked besides Go modules. That SQLite is in go-sqlite3.
func libraries() ([]part, error) {
	dqlite, err := dqliteLicence()
	if err != nil {
		return nil, err
	}
	pin, err := os.ReadFile("scripts/dqlite/pin")
	if err != nil {
		return nil, err
	}
	version, _, _ := strings.Cut(string(pin), " ")
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	golang, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "LICENSE"))
	if err != nil {
		return nil, err
	}
	parts := []part{
		{name: "Go's runtime and standard library", version: runtime.Version(), texts: []string{string(golang)}},
		{name: "dqlite", version: version + ", patched (scripts/dqlite)", texts: []string{dqlite},
			licence: "LGPL-3.0, with an exception for linking"},
		{name: "SQLite", version: "in go-sqlite3", licence: "public domain"},
	}
	for _, p := range []struct{ name, pkg, licence string }{
		{"libuv", "libuv1-dev", "MIT"}, {"LZ4", "liblz4-dev", "BSD-2-Clause"}, {"glibc", "libc6-dev", "LGPL-2.1"},
	} {
		text, err := os.ReadFile(filepath.Join("/usr/share/doc", p.pkg, "copyright"))
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{name: p.name, version: "of Debian", texts: []string{string(text)}, licence: p.licence})
	}
	for _, name := range []string{"LGPL-2.1", "LGPL-3", "GPL-3"} {
		text, err := os.ReadFile(filepath.Join("/usr/share/common-licenses", name))
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{name: "the text of " + name, texts: []string{string(text)}, licence: "for those above"})
	}
	return parts, nil
}

// dqliteLicence reads the licence out of the source that scripts/setup.sh has fetched.
func dqliteLicence() (string, error) {
	names, _ := filepath.Glob(".deps/dqlite_*.orig.tar.gz")
	if len(names) == 0 {
		return "", errors.New("no source of dqlite is in .deps: make setup")
	}
	f, err := os.Open(names[0])
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return "", err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			return "", fmt.Errorf("%s has no LICENSE: %w", names[0], cmp.Or(err, fs.ErrNotExist))
		}
		if strings.Count(h.Name, "/") == 1 && strings.HasSuffix(h.Name, "/LICENSE") {
			text, err := io.ReadAll(r)
			return string(text), err
		}
	}
}

// kinds are the licences by words that only they have, the more special ones first.
var kinds = []struct{ name, words string }{
	{"Apache-2.0", "Apache License"},
	{"MPL-2.0", "Mozilla Public License"},
	{"ISC", "Permission to use, copy, modify, and/or distribute"},
	{"BSD-3-Clause", "endorse or promote"},
	{"BSD-2-Clause", "Redistributions in binary form"},
	{"MIT", "Permission is hereby granted, free of charge"},
	{"LGPL-3.0", "GNU LESSER GENERAL PUBLIC LICENSE"},
}

func (p part) kind() (string, error) {
	if p.licence != "" {
		return p.licence, nil
	}
	all := strings.Join(strings.Fields(strings.Join(p.texts, "\n")), " ")
	for _, k := range kinds {
		if strings.Contains(all, k.words) {
			return k.name, nil
		}
	}
	return "", fmt.Errorf("the licence of %s is not known here", p.name)
}

// write makes the table and the texts, each of them once.
func write(parts []part) (string, error) {
	var table, texts strings.Builder
	users := map[string][]string{}
	var order []string
	for _, p := range parts {
		kind, err := p.kind()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&table, "%s: %s\n", strings.TrimSpace(p.name+" "+p.version), kind)
		for _, text := range p.texts {
			text = strings.TrimSpace(text)
			if users[text] == nil {
				order = append(order, text)
			}
			users[text] = append(users[text], p.name)
		}
	}
	for _, text := range order {
		fmt.Fprintf(&texts, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 100), strings.Join(users[text], "\n"), text)
	}
	return "These are linked into muster, each under its own licence. The texts follow, each of them once. (made by " +
		"scripts/notice)\n\n" +
		table.String() + texts.String(), nil
}
