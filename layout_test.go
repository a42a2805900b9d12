package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// longestLine is in characters; a tab counts as one.
const longestLine = 120

// Every line of Go fits, and a literal of more than four fields has one a line.
func TestLayout(t *testing.T) {
	for name, text := range sources(t) {
		for i, line := range strings.Split(text, "\n") {
			if n := utf8.RuneCountInString(line); n > longestLine {
				t.Errorf("%s:%d has %d characters, more than %d", name, i+1, n, longestLine)
			}
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.CompositeLit); ok && fields(lit) > 4 && shareLines(set, lit) {
				t.Errorf("%v has %d fields: write one a line", set.Position(lit.Pos()), fields(lit))
			}
			return true
		})
	}
}

// sources returns the text of all Go files, those of the modules for conformance and benchmarks too.
func sources(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && d.Name()[0] == '.':
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		text, err := os.ReadFile(path)
		found[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// fields counts the fields that a literal names; none where it is a map or a list.
func fields(lit *ast.CompositeLit) int {
	if _, ok := lit.Type.(*ast.MapType); ok {
		return 0
	}
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return 0
		}
		if _, ok := kv.Key.(*ast.Ident); !ok {
			return 0
		}
	}
	return len(lit.Elts)
}

// shareLines reports whether two fields of a literal begin in the same line.
func shareLines(set *token.FileSet, lit *ast.CompositeLit) bool {
	last := set.Position(lit.Lbrace).Line
	for _, e := range lit.Elts {
		line := set.Position(e.Pos()).Line
		if line == last {
			return true
		}
		last = set.Position(e.End()).Line
	}
	return false
}

// What fits into one look: a file has fewer than 400 lines, a function at most 60, a test at most 80.
const (
	fileLines     = 400
	functionLines = 60
	testLines     = 80
)

func TestSizesOfFilesAndFunctions(t *testing.T) {
	known := map[string]bool{}
	for name, text := range sources(t) {
		if n := strings.Count(text, "\n"); n >= fileLines {
			t.Errorf("%s has %d lines: split it by topic", name, n)
		}
		most := functionLines
		if strings.HasSuffix(name, "_test.go") {
			most = testLines
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1
			id := filepath.ToSlash(name) + " " + f.Name.Name
			if table(f) {
				continue
			}
			if lines > most && !slices.Contains(longer, id) {
				t.Errorf("%s has %d lines, more than %d: give its parts names", id, lines, most)
			}
			known[id] = lines > most
		}
	}
	for _, id := range longer {
		if !known[id] {
			t.Errorf("%s is not too long any more: take it off the list", id)
		}
	}
}

// table reports whether a function only returns a literal, such as the rows of a table.
func table(f *ast.FuncDecl) bool {
	if f.Body == nil || len(f.Body.List) != 1 {
		return false
	}
	ret, ok := f.Body.List[0].(*ast.ReturnStmt)
	if !ok || len(ret.Results) != 1 {
		return false
	}
	_, ok = ret.Results[0].(*ast.CompositeLit)
	return ok
}

// longer are the functions of before the bounds. The list only shrinks.
var longer = []string{
	"certs/authority_test.go TestParseAuthority",
	"certs/permitted_test.go TestPermittedByOpenSSL",
	"cli/ca_test.go TestCACommands",
	"cluster/autopilot/property_test.go checkPlan",
	"cluster/autopilot/upgrade_test.go TestPlanUpgrade",
	"cluster/backup/bucket_test.go TestBucketsThatCannot",
	"cluster/transport/aged_test.go TestAged",
	"e2e/backup_test.go TestBackup",
	"e2e/ca_test.go testCARotation",
	"e2e/faults/checks_test.go TestModels",
	"e2e/faults_test.go TestLeaderPaused",
	"e2e/faults_test.go TestNoQuorum",
	"e2e/keys_removal_test.go testRemoval",
	"e2e/keys_rotation_test.go testRotation",
	"e2e/leftbehind_test.go TestRecoverToken",
	"e2e/members_bgp_test.go TestMembersBGP",
	"e2e/released_test.go TestUpgradeFromReleased",
	"e2e/tls_test.go testClusterListener",
	"e2e/upgrade_test.go TestRollingUpgrade",
	"handlers/certnames_test.go TestNamesInCertificates",
	"handlers/sizes_test.go tooLongRequests",
	"node/bucket_test.go TestBackupsInBucket",
	"store/foreignarchive_test.go TestForeignArchives",
	"store/jointokens_test.go TestTokenState",
	"store/overlay_test.go TestOverlayModel",
	"store/peerings_same_test.go TestPeeringsAreTheSameEverywhere",
	"store/query_test.go TestQueryRefuses",
	"store/restore_test.go TestRestoreKeepsRevocations",
	"store/same_test.go TestAllCopiesAreTheSame",
	"store/same_test.go step",
	"store/writer_test.go TestIdempotencyKey",
	"testdata/conformance/nomad_neighbours_test.go TestNomadAutopilotAndSnapshot",
	"testdata/conformance/nomad_test.go TestNomadRaftOperator",
}
