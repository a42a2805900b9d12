package store

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAuditSaysHow: no audit row is written without a detail, also where no route leads: the leader's own rows say
// what they did, too.
func TestAuditSaysHow(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 3 {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "audit" {
				return true
			}
			calls++
			if detail, ok := call.Args[2].(*ast.BasicLit); ok && detail.Value == `""` {
				t.Errorf("%s: an audit row without a detail", fset.Position(call.Pos()))
			}
			return true
		})
	}
	if calls < 50 {
		t.Errorf("only %d calls", calls)
	}
}
