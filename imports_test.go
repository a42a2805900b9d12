package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// shared are the packages that any other may import: they import none of the rooms, and nothing of ours but each other.
var shared = []string{
	"certs", "internal/addr", "internal/naming", "internal/netlimit", "internal/sumtar", "internal/timing", "migrations",
}

// apart are the folders that are no part of the program: modules of their own, and tests with processes.
var apart = []string{"bench", "e2e", "tools"}

// arrows says, for each room, what it may import of ours besides the shared packages. A room with /… stands for
// all below it, and for itself. Imports run one way: docs/architecture.md has the picture.
var arrows = map[string][]string{
	"certs":             {},
	"internal/addr":     {},
	"internal/naming":   {"internal/addr"},
	"internal/netlimit": {},
	"internal/sumtar":   {},
	"internal/timing":   {},
	"migrations":        {},

	".":              {"cli"},
	"scripts/man":    {"cli"},
	"scripts/notice": {},
	// datadir and store: commands on files
	"cli":         {"cli/…", "node", "client", "api", "cluster/datadir", "store"},
	"cli/console": {},
	"cli/devdir":  {},
	"cli/process": {},
	"client":      {"api"},
	"api":         {},
	// A member that joins is a client of its cluster. node puts everything else together.
	"node": {"api", "client", "handlers/…", "cluster/…", "store"},

	"handlers":                     {"cluster/autopilot", "store"},
	"handlers/internal/membership": {"handlers", "store"},
	"handlers/zlayer":              family(),
	"handlers/elastic":             family(),
	"handlers/ella":                family(),
	"handlers/consul":              family(),
	"handlers/nomad":               family(),
	"handlers/signin":              {},
	"handlers/signin/signintest":   {}, // for tests
	"handlers/native":              family("handlers/native/openapi", "handlers/signin"),
	"handlers/native/openapi":      {},
	"handlers/native/ui":           family(),
	"handlers/internal/…": {"handlers/…", "api", "cluster/autopilot", "internal/await", "internal/described",
		"store"}, // for tests

	"cluster": {"api", "cluster/autopilot", "cluster/backup", "cluster/datadir", "cluster/peering", "cluster/transport",
		"cluster/workload", "store"},
	"cluster/autopilot":         {},
	"cluster/backup":            {"cluster/transport", "store"},
	"cluster/backup/buckettest": {}, // for tests
	"cluster/datadir":           {"cluster/transport", "store"},
	"cluster/peering":           {"cluster/transport", "store"},
	"cluster/transport":         {"store"},
	"cluster/workload":          {"cluster/transport", "store"},
	"cluster/clustertest":       {"cluster/datadir", "cluster/transport", "internal/await", "store"}, // for tests

	"store":                   {"store/engine", "store/foreign", "store/sizes"},
	"store/foreign":           {"store/engine"},
	"store/sizes":             {"store/engine"},
	"store/engine":            {},
	"store/engine/enginetest": {"store/engine", "internal/await"}, // for tests

	"internal/await":     {},                          // for tests
	"internal/described": {"handlers/native/openapi"}, // for tests
	"internal/enrolled":  {},                          // for tests
	"internal/silent":    {},                          // for tests
}

// family is what a family of the API may import: the engine, never another family.
func family(more ...string) []string {
	return append(more, "handlers", "handlers/internal/membership", "api", "cluster/autopilot", "store")
}

// Every import of the program goes along an arrow. Tests may go against them.
func TestImports(t *testing.T) {
	sharedOf := func(room string) []string {
		if slices.Contains(shared, room) {
			return nil
		}
		return shared
	}
	for room, imports := range importsOfOurs(t) {
		allowed, known := arrowsOf(room)
		if !known {
			t.Errorf("%s has no row in arrows: say what it may import", room)
			continue
		}
		for _, to := range imports {
			if !matches(append(sharedOf(room), allowed...), to) {
				t.Errorf("%s imports %s, and no arrow leads there", room, to)
			}
		}
	}
}

// arrowsOf finds the row of a room: its own, or that of the room around it.
func arrowsOf(room string) ([]string, bool) {
	if list, ok := arrows[room]; ok {
		return list, true
	}
	for outer := filepath.Dir(room); outer != "."; outer = filepath.Dir(outer) {
		if list, ok := arrows[outer+"/…"]; ok {
			return list, true
		}
	}
	return nil, false
}

func matches(patterns []string, room string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		outer, all := strings.CutSuffix(p, "/…")
		return p == room || all && (room == outer || strings.HasPrefix(room, outer+"/"))
	})
}

// importsOfOurs lists for each package what its files, tests aside, import of this module.
func importsOfOurs(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains(apart, path) || d.Name() == "testdata" || path != "." && d.Name()[0] == '.'):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		room := filepath.Dir(path)
		if found[room] == nil {
			found[room] = []string{}
		}
		for _, i := range file.Imports {
			if name, err := strconv.Unquote(i.Path.Value); err == nil {
				if to, ours := strings.CutPrefix(name, "muster/"); ours && !slices.Contains(found[room], to) {
					found[room] = append(found[room], to)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A room fits in one look: at most 25 files, 40 where there is one for each command or noun. Tests do not count.
func TestRoomsAreSmall(t *testing.T) {
	for room := range importsOfOurs(t) {
		files, err := filepath.Glob(filepath.Join(room, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		files = slices.DeleteFunc(files, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
		most := 25
		if room == "cli" || room == "store" {
			most = 40
		}
		if len(files) > most {
			t.Errorf("%s has %d files, more than %d: make a room of a part of it", room, len(files), most)
		}
	}
}
