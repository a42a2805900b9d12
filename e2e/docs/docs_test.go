package docs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/cli"
	"muster/e2e/processes"
)

// notRun bounds how many blocks may say that they cannot be run here.
const notRun = 17

// settles is how long what a command shows may take to become what the document shows.
const settles = 20 * time.Second

func TestMain(m *testing.M) {
	processes.Muster(func() { cli.Version = "1a2b3c4d" })
	os.Exit(m.Run())
}

// TestDocuments runs all blocks of commands of all documents.
func TestDocuments(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	files = append(files, "../../README.md", "../../CONTRIBUTING.md")
	var skipped atomic.Int64
	t.Run("of", func(t *testing.T) {
		for _, file := range files {
			t.Run(filepath.Base(file), func(t *testing.T) {
				t.Parallel()
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				blocks, err := parse(filepath.Base(file), string(text))
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range blocks {
					if b.needs.skip != "" {
						skipped.Add(1)
						t.Logf("%s:%d is not run: %s", b.file, b.line, b.needs.skip)
					}
				}
				begin := time.Now()
				for _, err := range runAll(t.TempDir(), settles, blocks) {
					t.Error(err)
				}
				t.Logf("%d blocks in %v", len(blocks), time.Since(begin).Round(time.Millisecond))
			})
		}
	})
	if n := skipped.Load(); n > notRun {
		t.Errorf("%d blocks are not run, more than %d", n, notRun)
	}
}

var places atomic.Int64

// runAll runs the blocks of a document, each in the place that it needs, and returns what is wrong.
func runAll(dir string, settles time.Duration, blocks []block) (faults []error) {
	var p *place
	defer func() {
		if p != nil {
			p.close()
		}
	}()
	failed := false // nothing in this place can be relied on
	for _, b := range blocks {
		if b.needs.skip != "" {
			continue
		}
		if b.needs.fresh {
			if p != nil {
				p.close()
			}
			n := places.Add(1)
			own := filepath.Join(dir, fmt.Sprint(n))
			if err := os.MkdirAll(own, 0o700); err != nil {
				return append(faults, err)
			}
			var err error
			if p, err = newPlace(own, fmt.Sprintf("docs-%d-%d-%d", os.Getpid(), n, time.Now().UnixNano())); err != nil {
				return append(faults, err)
			}
			failed = false
		}
		if p == nil {
			return append(faults, fmt.Errorf("%s:%d: the first block does not say what it needs", b.file, b.line))
		}
		if failed {
			continue
		}
		if err := p.runBlock(b, settles); err != nil {
			faults, failed = append(faults, err), true
		}
	}
	return faults
}

func (p *place) runBlock(b block, settles time.Duration) error {
	var first []step
	if b.needs.cluster > 0 {
		first = append(first, step{line: b.line, command: fmt.Sprintf("muster dev --nodes %d", b.needs.cluster)})
	}
	for _, command := range b.needs.setup {
		first = append(first, step{line: b.line, command: command})
	}
	for i, s := range append(first, b.steps...) {
		member := b.needs.on
		if s.machine > 0 {
			member = s.machine
		}
		want := 0
		if i == len(first)+len(b.steps)-1 {
			want = b.needs.exit
		}
		said, err := p.check(s, member, want, settles)
		if err != nil {
			return fmt.Errorf("%s:%d: %s\n%w\nit prints:\n%s", b.file, s.line, s.command, err, said)
		}
	}
	return nil
}

// looks are commands that only look. They are repeated for a while: what members know of each other takes a moment.
var looks = regexp.MustCompile(`^(sqlite3|curl -s |(\./)?muster (members|autopilot|status|peering ` +
	`(list|show|members)|(ca|key) status|` +
	`enrollment list|audit|raft|doctor))\b`)

// check runs a command and compares its exit status and what it has printed.
func (p *place) check(s step, member, want int, settles time.Duration) (said string, err error) {
	for deadline := time.Now().Add(settles); ; time.Sleep(100 * time.Millisecond) {
		var code int
		said, code, err = p.do(s, member)
		switch {
		case err == nil && code != want:
			err = fmt.Errorf("exit status %d", code)
		case err == nil:
			var prints []string
			for _, line := range s.prints {
				prints = append(prints, p.here(strings.ReplaceAll(line, "[y/N] y", "[y/N] …"), member))
			}
			err = missing(prints, said)
		}
		if err == nil || !looks.MatchString(s.command) || goesOnFor.MatchString(s.command) || time.Now().After(deadline) {
			return said, err
		}
	}
}

// TestWrongCommandFails: what a document gets wrong is found.
func TestWrongCommandFails(t *testing.T) {
	t.Parallel()
	const text = "<!-- run: %s -->\n```console\n%s\n```\n"
	for name, x := range map[string]struct{ place, block, fault string }{
		"right":        {"cluster=1", "$ muster members\nID NAME STATUS …\n1 node-1 alive …", ""},
		"no command":   {"empty", "$ muster membres", "exit status 2"},
		"no flag":      {"empty", "$ muster members --colour", "exit status 2"},
		"refused":      {"cluster=1", "$ muster member show 7", "exit status 1"},
		"other output": {"cluster=1", "$ muster members\n1 node-1 dead …", "does not print this line"},
		"other order":  {"cluster=1", "$ muster members\n1 node-1 alive …\nID NAME STATUS …", "does not print this line"},
		"no program":   {"empty", "$ mustre members", "exit status 127"},
		"pipe":         {"empty", "$ muster membres | cat", "exit status 2"},
		"syntax":       {"empty", "$ muster members)", "exit status"},
		"does not run": {"cluster=1", "$ muster serve --data x --api 127.0.0.1:5000 --raft 127.0.0.1:7000",
			"does not print this line"},
		"second in dev": {"cluster=1", "$ muster dev --data data", "does not print this line"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blocks, err := parse("a.md", fmt.Sprintf(text, x.place, x.block))
			if err != nil {
				t.Fatal(err)
			}
			patience := time.Second
			if x.fault == "" {
				patience = settles
			}
			err = errors.Join(runAll(t.TempDir(), patience, blocks)...)
			if x.fault == "" && err != nil || x.fault != "" && (err == nil || !strings.Contains(err.Error(), x.fault)) {
				t.Errorf("want %q, got: %v", x.fault, err)
			}
		})
	}
}

// TestParse: comments and blocks are read as doc.go says.
func TestParse(t *testing.T) {
	t.Parallel()
	blocks, err := parse("a.md",
		"<!-- run: cluster=3 on=2 exit=1\nX=1 -->\n  ```console\n  B$ a \\\n      b\n  out\n  ```\n"+
			"<!-- run: no, needs a machine -->\n```sh\n# about\nc\n```\n```go\nd\n```\n")
	if err != nil || len(blocks) != 2 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	first, s := blocks[0].needs, blocks[0].steps
	if !first.fresh || first.cluster != 3 || first.on != 2 || first.exit != 1 || len(first.setup) != 1 ||
		len(s) != 1 || s[0].command != "a \\\n    b" || s[0].machine != 2 || len(s[0].prints) != 1 {
		t.Errorf("%+v", blocks[0])
	}
	if blocks[1].needs.skip != "needs a machine" || len(blocks[1].steps) != 1 {
		t.Errorf("%+v", blocks[1])
	}
	for _, bad := range []string{"<!-- run: no, -->", "<!-- run: colour=3 -->", "<!-- run: cluster=x -->",
		"<!-- run: empty"} {
		if _, err := parse("a.md", bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
