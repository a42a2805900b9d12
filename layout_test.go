package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
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
