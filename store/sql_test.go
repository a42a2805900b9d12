package store

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"muster/store/engine"
)

func TestSQL(t *testing.T) {
	w := walkSQL(t)
	for _, f := range w.check() {
		t.Error(f)
	}
	db := migratedDB(t)
	tables := map[string]bool{}
	b := newBench(t, db)
	for name := range contents(t, b.view()) {
		tables[name] = true
	}
	recorded := 0
	for _, f := range w.found {
		st, err := b.s.Conn().PrepareContext(bg, f.query)
		if err != nil {
			t.Errorf("%s: %v: %s", f.at, err, f.query)
			continue
		}
		st.Close()
		if !f.exec {
			continue
		}
		recorded++
		if !tables[engine.TableOf(f.query)] {
			t.Errorf("%s: the change feed would name the table %q: %s", f.at, engine.TableOf(f.query), f.query)
		}
		if engine.PlainInsert(f.query) {
			if key := integerKey(t, b, engine.TableOf(f.query)); key != "" &&
				!regexp.MustCompile(`(?s)\(.*\b`+key+`\b.*\)\s+VALUES`).MatchString(f.query) {
				t.Errorf("%s: SQLite chooses %s.%s, and chooses again when rows are rearranged: %s", f.at, engine.TableOf(f.query),
					key, f.query)
			}
		}
	}
	t.Logf("%d SQL texts, %d of them executed", len(w.found), recorded)
	if recorded < 15 || len(w.found) < 40 {
		t.Errorf("only %d texts, %d executed: the walk misses some", len(w.found), recorded)
	}
	// Whatever looks like SQL in a literal must have been seen, as it is or as part of a sum.
	for _, f := range w.files {
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			s, _ := strconv.Unquote(lit.Value)
			if !sqlText.MatchString(s) {
				return true
			}
			for _, f := range w.found {
				if strings.Contains(f.query, s) {
					return true
				}
			}
			t.Errorf("%s: not seen by the walk: %s", w.fset.Position(n.Pos()), s)
			return true
		})
	}
}

// integerKey is the column that is the rowid of a table, if there is one.
func integerKey(t testing.TB, b *bench, table string) (name string) {
	t.Helper()
	rows, err := b.s.Conn().QueryContext(bg,
		"SELECT name FROM pragma_table_info(?) WHERE pk = 1 AND type = 'INTEGER' AND (SELECT max(pk) FROM "+
			"pragma_table_info(?)) = 1", table, table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// The rules must be able to refuse.
func TestSQLRulesRefuse(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"fine", `t.exec("UPDATE a SET b = ?", 1)`, ""},
		{"fine, with a constant", `t.exec(head+" WHERE c = ?", 1, 2)`, ""},
		{"returning", `t.exec("INSERT INTO a (b) VALUES (?) RETURNING b", 1)`, "RETURNING"},
		{"query executed", `t.exec("SELECT b FROM a")`, "expects no rows"},
		{"random", `t.exec("UPDATE a SET b = random()")`, "different values"},
		{"now", `t.exec("UPDATE a SET b = strftime('%s', 'now')")`, "different values"},
		{"no argument means now", `t.exec("UPDATE a SET b = datetime()")`, "different values"},
		{"current", `t.exec("UPDATE a SET b = CURRENT_TIMESTAMP")`, "different values"},
		{"in a statement value", `_ = statement{query: "UPDATE a SET b = random()"}`, "different values"},
		{"limit", `t.exec("DELETE FROM a WHERE b IN (SELECT b FROM a LIMIT 1)")`, "LIMIT"},
		{"sum with a value", `t.exec("UPDATE a SET b = " + value)`, "not a constant"},
		{"sum with a number", `t.get("SELECT b FROM a WHERE c = " + strconv.Itoa(n))`, "not a constant"},
		{"sprintf", `t.get(fmt.Sprintf("SELECT b FROM a WHERE c = %d", n))`, "fmt.Sprintf"},
		{"replace", `t.get(strings.ReplaceAll("SELECT b FROM a WHERE c = $", "$", x))`, "ReplaceAll"},
		{"too few arguments", `t.exec("UPDATE a SET b = ? WHERE c = ?", 1)`, "cannot be sent"},
		{"parameter that callers fill with constants", `t.part(" WHERE b = 1")`, ""},
		{"parameter that a caller computes", `t.part(x)`, "not a constant"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &sqlWalk{t: t, fset: token.NewFileSet(), consts: map[string]string{}}
			w.read(map[string]string{"a.go": "package a\nconst head = \"UPDATE a SET b = ?\"\nfunc (t *T) part(where string) " +
				"{ t.get(\"SELECT b FROM a\" + where) }\n" +
				"func f() { t.part(\" WHERE c = 2\") }\nfunc g(n int) {\n" + c.body + "\n}\n"})
			got := strings.Join(w.check(), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("want %q, got %q; found %+v", c.want, got, w.found)
			}
		})
	}
}
