package docs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/cli"
)

// sources lists the files of the tree that have one of these endings, without what is not ours.
func sources(t *testing.T, endings ...string) (names []string) {
	t.Helper()
	err := filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2, d.IsDir() && d.Name() == "node_modules":
			return filepath.SkipDir
		case slices.Contains(endings, filepath.Ext(name)):
			names = append(names, name)
		}
		return nil
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("no files: %v", err)
	}
	return names
}

var (
	// "reference consul_peering, section 1.1", "docs/reference/contract.md, section 5", "sections 1.4 and 3", "2.2 (b)"
	cites = regexp.MustCompile(`\breference[ /]([a-z]+_[a-z]+|contract)(?:\.md)?(?:,? (?:sections? ` +
		`)?(\d+(?:\.\d+)?)(?: \([a-z]\))?(?: and (\d+(?:\.\d+)?))?)?`)
	numbers = regexp.MustCompile(`(?m)^#{2,4} (\d+(?:\.\d+)?)[. ]`)
	joins   = regexp.MustCompile(`\n\s*(//|#|--|\*)?\s*`)
)

// TestReferences: each comment that cites the reference points to a section that is in the tree.
func TestReferences(t *testing.T) {
	t.Parallel()
	known := map[string][]string{}
	found := 0
	for _, name := range sources(t, ".go", ".js", ".sql", ".sh", ".md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range cites.FindAllStringSubmatch(joins.ReplaceAllString(string(text), " "), -1) {
			found++
			if known[m[1]] == nil {
				page, err := os.ReadFile("../../docs/reference/" + m[1] + ".md")
				if err != nil {
					t.Errorf("%s cites %q: %v", name, m[0], err)
					continue
				}
				known[m[1]] = []string{""}
				for _, n := range numbers.FindAllStringSubmatch(string(page), -1) {
					known[m[1]] = append(known[m[1]], n[1])
				}
			}
			for _, section := range m[2:] {
				if !slices.Contains(known[m[1]], section) {
					t.Errorf("%s cites %q: docs/reference/%s.md has no section %s", name, m[0], m[1], section)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d citations were found", found)
	}
}

var (
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
	fences   = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
)

// anchor is what a heading is called in a link.
func anchor(heading string) string {
	heading = strings.ToLower(strings.TrimSpace(links.ReplaceAllString(heading, "")))
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_', r > 127 && r != '–':
			return r
		case r == ' ':
			return '-'
		}
		return -1
	}, heading)
}

// TestLinks: each link from one document to another, or to a file, leads somewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, name := range sources(t, ".md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range links.FindAllStringSubmatch(fences.ReplaceAllString(string(text), ""), -1) {
			file, part, _ := strings.Cut(m[1], "#")
			if strings.Contains(file, "://") {
				continue
			}
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			if info, err := os.Stat(target); err != nil || info.IsDir() && part != "" {
				t.Errorf("%s has a link to %s: %v", name, m[1], errors.Join(err))
				continue
			}
			if part == "" {
				continue
			}
			page, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(headings.FindAllStringSubmatch(string(page), -1), func(h []string) bool {
				return anchor(h[1]) == part
			}) {
				t.Errorf("%s has a link to %s: %s has no such heading", name, m[1], target)
			}
		}
	}
}

var (
	inTicks  = regexp.MustCompile("`([A-Za-z0-9_./*-]+)`")
	testName = regexp.MustCompile(`\bTest[A-Z]\w+`)
	testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// TestNamedFiles: the files and tests that the pages for successors name are there.
func TestNamedFiles(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}
	for _, name := range sources(t, ".go") {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			tests[m[1]] = true
		}
	}
	for _, page := range []string{"CONTRIBUTING.md", "docs/architecture.md", "store/DESIGN.md", "handlers/DESIGN.md",
		"cluster/DESIGN.md",
		"cluster/autopilot/DESIGN.md", "docs/reliability.md"} {
		text, err := os.ReadFile("../../" + page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range testName.FindAllString(string(text), -1) {
			if !tests[name] {
				t.Errorf("%s names %s, and there is no such test", page, name)
			}
		}
		if page != "CONTRIBUTING.md" && page != "docs/architecture.md" {
			continue
		}
		for _, m := range inTicks.FindAllStringSubmatch(strings.ReplaceAll(string(text), "FAMILY", "consul"), -1) {
			name := m[1]
			if !strings.Contains(name, "/") || strings.HasPrefix(name, "/") || strings.HasPrefix(name, ".deps") {
				continue
			}
			if found, err := filepath.Glob("../../" + name); err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which is not there", page, name)
			}
		}
	}
}

var longFlag = regexp.MustCompile("(?:^|[ `|])--([a-z][a-z0-9-]+)")

// others are programs whose flags the documents show, too.
var others = regexp.MustCompile(`\b(curl|openssl|age-keygen|sqlite3|basenc|base64|systemctl|journalctl|ssh|sed|go ` +
	`test|birdc|make)\b[^|&;]*`)

// TestFlags: each flag that the documents name is one of muster's, and operations.md lists every flag of serve.
func TestFlags(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"help": true, "version": true}
	serve := map[string]bool{}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		note := func(f *pflag.Flag) { known[f.Name] = true }
		cmd.Flags().VisitAll(note)
		cmd.PersistentFlags().VisitAll(note)
		if cmd.Name() == "serve" {
			cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				if !f.Hidden && f.Name != "help" {
					serve[f.Name] = true
				}
			})
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(cli.Command())
	for _, name := range sources(t, ".md") {
		if strings.Contains(name, "/reference/") || strings.HasSuffix(name, "DESIGN.md") {
			continue // they tell of others
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			for _, m := range longFlag.FindAllStringSubmatch(others.ReplaceAllString(line, ""), -1) {
				if !known[m[1]] {
					t.Errorf("%s names --%s, and no command has it:\n%s", name, m[1], line)
				}
			}
		}
	}
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range serve {
		if !strings.Contains(string(operations), "`--"+name) {
			t.Errorf("docs/operations.md does not list --%s of serve", name)
		}
	}
}
