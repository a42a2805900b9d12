package store

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"muster/store/engine"
)

// A walk over the SQL in the source of this package and the engine. It knows literals, constants of the package, sums
// of them, and the one kind of variable that a sum may have: a parameter for which every caller passes a constant.

var (
	sqlText = regexp.MustCompile(`^\s*(SELECT|INSERT|REPLACE|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|PRAGMA)\s+\S`)
	// What differs from one run of a statement to the next. The working copy and dqlite both run it.
	unstable = regexp.MustCompile(
		`(?i)\brandom(blob)?\s*\(|'now'|\bcurrent_(timestamp|date|time)\b|` +
			`\b(datetime|date|time|julianday|unixepoch)\s*\(\s*\)|` +
			`\blast_insert_rowid\s*\(|\b(total_)?changes\s*\(|\bsqlite_version\s*\(`)
	quoted = regexp.MustCompile(`'(?:[^']|'')*'`)
)

// found is one SQL text of the source.
type found struct {
	at    string
	query string
	args  int  // of the call, -1 when it cannot be seen
	exec  bool // run by a function that takes no rows, and recorded for dqlite when it is Tx's
}

type sqlWalk struct {
	t      testing.TB
	fset   *token.FileSet
	consts map[string]string
	files  []*ast.File
	found  []found
	faults []string
}

func walkSQL(t testing.TB) *sqlWalk {
	t.Helper()
	w := &sqlWalk{t: t, fset: token.NewFileSet(), consts: map[string]string{}}
	sources := map[string]string{}
	for _, pattern := range []string{"*.go", "engine/*.go"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			sources[name] = string(b)
		}
	}
	w.read(sources)
	return w
}

func (w *sqlWalk) read(sources map[string]string) {
	w.t.Helper()
	for name, text := range sources {
		f, err := parser.ParseFile(w.fset, name, text, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		w.files = append(w.files, f)
	}
	for range 2 { // constants may be sums of constants that come later
		for _, f := range w.files {
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.ValueSpec)
				if !ok {
					return true
				}
				for i, v := range spec.Values {
					if s, ok := w.constant(v); ok && i < len(spec.Names) {
						w.consts[spec.Names[i].Name] = s
					}
				}
				return true
			})
		}
	}
	for _, f := range w.files {
		for _, d := range f.Decls {
			w.decl(d)
		}
	}
}

// constant is the text of an expression that is one when the program is compiled.
func (w *sqlWalk) constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			s, err := strconv.Unquote(e.Value)
			return s, err == nil
		}
	case *ast.Ident:
		s, ok := w.consts[e.Name]
		return s, ok
	case *ast.ParenExpr:
		return w.constant(e.X)
	case *ast.BinaryExpr:
		a, ok1 := w.constant(e.X)
		b, ok2 := w.constant(e.Y)
		return a + b, ok1 && ok2 && e.Op == token.ADD
	}
	return "", false
}

func (w *sqlWalk) fault(n ast.Node, format string, args ...any) {
	w.faults = append(w.faults, fmt.Sprintf("%s: %s", w.fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
}

// declWalk looks at one declaration.
type declWalk struct {
	*sqlWalk
	fn    *ast.FuncDecl     // nil outside of functions
	taken map[ast.Expr]bool // expressions that a call or sum above them has dealt with
}

func (w *sqlWalk) decl(d ast.Decl) {
	fn, _ := d.(*ast.FuncDecl)
	v := declWalk{w, fn, map[ast.Expr]bool{}}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			v.call(n)
		case *ast.CompositeLit:
			v.literal(n)
		case *ast.BinaryExpr:
			v.sum(n)
		case *ast.BasicLit:
			if !v.taken[n] {
				v.add(n, -1, false)
			}
		}
		return true
	})
}

func (w declWalk) take(e ast.Expr) {
	ast.Inspect(e, func(n ast.Node) bool {
		if x, ok := n.(ast.Expr); ok {
			w.taken[x] = true
		}
		return true
	})
}

// add notes the statements that e can be; false if e is no constant text.
func (w declWalk) add(e ast.Expr, args int, exec bool) bool {
	list, ok := w.variants(w.fn, e)
	if !ok {
		return false
	}
	for _, q := range list {
		if sqlText.MatchString(q) {
			w.found = append(w.found, found{w.fset.Position(e.Pos()).String(), q, args, exec})
		}
	}
	w.take(e)
	return true
}

func (w declWalk) call(n *ast.CallExpr) {
	name, pkg := callee(n)
	if pkg == "fmt" || name == "Replace" || name == "ReplaceAll" {
		for _, a := range n.Args {
			if list, ok := w.variants(w.fn, a); ok && len(list) > 0 && sqlText.MatchString(list[0]) {
				w.fault(a, "SQL is put together by %s.%s", pkg, name)
			}
		}
		return
	}
	for i, a := range n.Args {
		if w.taken[a] {
			continue
		}
		args := len(n.Args) - i - 1
		if n.Ellipsis.IsValid() || name != "exec" && name != "execCount" {
			args = -1
		}
		_, isSum := a.(*ast.BinaryExpr)
		_, isIdent := a.(*ast.Ident)
		lit, isLit := a.(*ast.BasicLit)
		if isSum || isIdent || isLit && lit.Kind == token.STRING {
			w.add(a, args, strings.Contains(strings.ToLower(name), "exec"))
		}
	}
}

// literal looks at statement{query: …, args: []any{…}}.
func (w declWalk) literal(n *ast.CompositeLit) {
	id, ok := n.Type.(*ast.Ident)
	if n.Type != nil && (!ok || id.Name != "statement") {
		return
	}
	args := -1
	for _, el := range n.Elts {
		if kv, ok := el.(*ast.KeyValueExpr); ok && fmt.Sprint(kv.Key) == "args" {
			if list, ok := kv.Value.(*ast.CompositeLit); ok {
				args = len(list.Elts)
			}
		}
	}
	for _, el := range n.Elts {
		if kv, ok := el.(*ast.KeyValueExpr); ok && fmt.Sprint(kv.Key) == "query" {
			w.add(kv.Value, args, true)
		}
	}
}

// sum looks at texts joined with +.
func (w declWalk) sum(n *ast.BinaryExpr) {
	if w.taken[n] {
		return
	}
	if w.add(n, -1, false) {
		return
	}
	if w.holdsSQL(n) {
		w.fault(n, "SQL is joined with something that is not a constant")
		w.take(n)
	}
}

func callee(c *ast.CallExpr) (name, pkg string) {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name, ""
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			pkg = x.Name
		}
		return f.Sel.Name, pkg
	case *ast.IndexExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name, ""
		}
	}
	return "", ""
}

func (w *sqlWalk) holdsSQL(e ast.Expr) (yes bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		if x, ok := n.(ast.Expr); ok {
			if s, ok := w.constant(x); ok && sqlText.MatchString(s) {
				yes = true
			}
		}
		return true
	})
	return yes
}

// variants lists every text that an expression can have.
func (w *sqlWalk) variants(fn *ast.FuncDecl, e ast.Expr) ([]string, bool) {
	if s, ok := w.constant(e); ok {
		return []string{s}, true
	}
	sum, ok := e.(*ast.BinaryExpr)
	if !ok || sum.Op != token.ADD {
		id, ok := e.(*ast.Ident)
		if !ok {
			return nil, false
		}
		return w.passed(fn, id.Name)
	}
	left, ok1 := w.variants(fn, sum.X)
	right, ok2 := w.variants(fn, sum.Y)
	var list []string
	for _, a := range left {
		for _, b := range right {
			list = append(list, a+b)
		}
	}
	return list, ok1 && ok2
}

// passed lists the constants that callers pass for a string parameter of fn; false when one passes anything else.
func (w *sqlWalk) passed(fn *ast.FuncDecl, name string) (list []string, ok bool) {
	if fn == nil || fn.Type.Params == nil {
		return nil, false
	}
	index, i := -1, 0
	for _, field := range fn.Type.Params.List {
		for _, n := range field.Names {
			if t, isIdent := field.Type.(*ast.Ident); n.Name == name && isIdent && t.Name == "string" {
				index = i
			}
			i++
		}
	}
	if index < 0 {
		return nil, false
	}
	ok = true
	for _, f := range w.files {
		ast.Inspect(f, func(n ast.Node) bool {
			c, isCall := n.(*ast.CallExpr)
			if !isCall || index >= len(c.Args) {
				return true
			}
			if called, _ := callee(c); called != fn.Name.Name {
				return true
			}
			s, constant := w.constant(c.Args[index])
			ok = ok && constant
			list = append(list, s)
			return true
		})
	}
	return list, ok && len(list) > 0
}

// check applies the rules to what was found.
func (w *sqlWalk) check() []string {
	faults := append([]string(nil), w.faults...)
	for _, f := range w.found {
		bare := quoted.ReplaceAllString(f.query, "''")
		changes := !regexp.MustCompile(`^\s*(SELECT|PRAGMA)`).MatchString(f.query)
		say := func(format string, args ...any) {
			faults = append(faults, fmt.Sprintf("%s: %s: %s", f.at, fmt.Sprintf(format, args...), f.query))
		}
		if f.exec && !changes {
			say("a query is given to a function that expects no rows")
		}
		if f.exec && regexp.MustCompile(`(?i)\bRETURNING\b`).MatchString(bare) {
			say("RETURNING in a statement that is executed makes dqlite abort")
		}
		if changes && unstable.MatchString(f.query) {
			say("the working copy and dqlite would compute different values")
		}
		if changes && regexp.MustCompile(`(?i)\bLIMIT\b`).MatchString(bare) {
			say("LIMIT picks rows by an order that nobody has fixed")
		}
		if changes && f.args >= 0 {
			if _, err := engine.Inline(f.query, make([]any, f.args)); err != nil {
				say("cannot be sent to dqlite: %v", err)
			}
		}
	}
	return faults
}
