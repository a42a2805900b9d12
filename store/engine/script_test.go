package engine

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster/store/engine/enginetest"
)

// scriptSchema has what the real one has: tables with and without rowid, deferred foreign keys, and triggers none.
const scriptSchema = `
CREATE TABLE parents (id TEXT PRIMARY KEY, n INTEGER NOT NULL DEFAULT 3, note TEXT, data BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE children (seq INTEGER PRIMARY KEY, parent TEXT REFERENCES parents (id) %s DEFERRABLE INITIALLY DEFERRED,
	n INTEGER NOT NULL, note TEXT NOT NULL DEFAULT '', UNIQUE (parent, n)) STRICT;
CREATE TABLE sequences (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO sequences VALUES ('a', 0), ('b', 0);`

const updateSequence = "UPDATE sequences SET value = ? WHERE name = ?"

// steps are the kinds of statements that the package records.
var steps = []struct {
	name  string
	query string
	args  func(*rapid.T) []any
}{
	{"plain insert", "INSERT INTO parents (id, n, note, data) VALUES (?, ?, ?, ?)",
		func(t *rapid.T) []any { return []any{aKey(t), aNumber(t), aText(t), aBlob(t)} }},
	{"plain insert, other columns", "INSERT INTO parents (id, n) VALUES (?, ?)",
		func(t *rapid.T) []any { return []any{aKey(t), aNumber(t)} }},
	{"plain insert with constants", "INSERT INTO parents (id, n, note)\n\t\tVALUES (?, 7, 'it''s (a) ?')",
		func(t *rapid.T) []any { return []any{aKey(t)} }},
	{"plain insert of a child", "INSERT INTO children (seq, parent, n, note) VALUES (?, ?, ?, ?)",
		func(t *rapid.T) []any { return []any{aNumber(t), aKey(t), aNumber(t), fmt.Sprint(aText(t))} }},
	{"plain insert of a child, other columns", "INSERT INTO children (seq, n) VALUES (?, ?)",
		func(t *rapid.T) []any { return []any{aNumber(t), aNumber(t)} }},
	{"update", "UPDATE parents SET n = n + ?, note = ? WHERE id = ?",
		func(t *rapid.T) []any { return []any{aNumber(t), aText(t), aKey(t)} }},
	{"update of a key", "UPDATE parents SET id = ? WHERE id = ?",
		func(t *rapid.T) []any { return []any{aKey(t), aKey(t)} }},
	{"update of children", "UPDATE children SET parent = ?, n = n + 1 WHERE seq = ?",
		func(t *rapid.T) []any { return []any{aKey(t), aNumber(t)} }},
	{"update with a SELECT",
		"UPDATE parents SET n = (SELECT count(*) FROM children WHERE parent = parents.id) WHERE id = ?",
		func(t *rapid.T) []any { return []any{aKey(t)} }},
	{"delete", "DELETE FROM parents WHERE id = ?", func(t *rapid.T) []any { return []any{aKey(t)} }},
	{"delete of children", "DELETE FROM children WHERE n < ?", func(t *rapid.T) []any { return []any{aNumber(t)} }},
	{"delete with a SELECT", "DELETE FROM children WHERE parent IN (SELECT id FROM parents WHERE n > ?)",
		func(t *rapid.T) []any { return []any{aNumber(t)} }},
	{"upsert", "INSERT INTO parents (id, n, note) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE " +
		"SET n = parents.n + excluded.n, note = excluded.note", func(t *rapid.T) []any {
		return []any{aKey(t), aNumber(t),
			aText(t)}
	}},
	{"insert or nothing", "INSERT INTO children (seq, parent, n) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
		func(t *rapid.T) []any { return []any{aNumber(t), aKey(t), aNumber(t)} }},
	{"insert with a SELECT",
		"INSERT INTO children (seq, parent, n) SELECT coalesce(max(seq), 0) + 1, ?, count(*) FROM children",
		func(t *rapid.T) []any { return []any{aKey(t)} }},
	{"insert from the other table",
		"INSERT INTO children (seq, parent, n) SELECT ? + 10, id, n FROM parents WHERE id = ?",
		func(t *rapid.T) []any { return []any{aNumber(t), aKey(t)} }},
}

func aKey(t *rapid.T) any    { return rapid.SampledFrom([]string{"a", "b", "it's", "ü?"}).Draw(t, "key") }
func aNumber(t *rapid.T) any { return int64(rapid.IntRange(-2, 6).Draw(t, "number")) }
func aText(t *rapid.T) any {
	return rapid.SampledFrom([]any{nil, "", "?", "x'--/*", "line\nbreak", "nul\x00byte", "日本"}).Draw(t, "text")
}
func aBlob(t *rapid.T) any {
	return rapid.SampledFrom([]any{nil, []byte{}, []byte{0, '\'', 255}}).Draw(t, "blob")
}

// A batch travels to dqlite with its statements rearranged. Whatever the mix, the cluster must hold what the
// leader has tried out one statement at a time.
func TestScriptMeansTheSame(t *testing.T) {
	t.Parallel()
	for _, action := range []struct{ name, sql string }{{"no action", ""}, {"cascade", "ON DELETE CASCADE"}} {
		t.Run(action.name, func(t *testing.T) {
			merged := 0
			schema := fmt.Sprintf(scriptSchema, action.sql)
			one, two := memoryDB(t), memoryDB(t)
			for _, db := range []*sql.DB{one, two} {
				if _, err := db.Exec(schema); err != nil {
					t.Fatal(err)
				}
			}
			a, b := newBench(t, one), newBench(t, two)
			check := func(rt *rapid.T) {
				for _, x := range []*bench{a, b} {
					_, _ = x.s.exec("ROLLBACK") // of a run that rapid gave up in the middle
					for _, q := range []string{"DELETE FROM children", "DELETE FROM parents", "UPDATE sequences SET value = 0"} {
						x.exec(q)
					}
				}
				if m := compareScript(rt, a, b); m > 0 {
					merged++
				}
			}
			for range 20 { // 100 batches each: what goes wrong here needs a coincidence
				if !t.Failed() {
					rapid.Check(t, check)
				}
			}
			if merged == 0 {
				t.Error("no batch had rows merged into one statement: the test proves nothing")
			}
		})
	}
}

// compareScript runs random requests on a, one statement at a time, and what they recorded on b as one text.
// It returns how many statements were saved.
func compareScript(rt *rapid.T, a, b *bench) int {
	var work script
	var log []string
	recorded := 0
	request := func(fn func(*Tx) error) {
		tx, err := a.write(fn)
		if err != nil {
			log = append(log, fmt.Sprint("  refused: ", err))
			return
		}
		for _, st := range tx.recorded {
			recorded++
			work.add(st)
		}
	}
	a.exec("BEGIN")
	for range rapid.IntRange(1, 12).Draw(rt, "requests") {
		request(func(tx *Tx) error {
			for range rapid.IntRange(1, 4).Draw(rt, "statements") {
				if rapid.IntRange(0, 7).Draw(rt, "keyed") == 0 {
					name, value := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "sequence"),
						rapid.Uint64Range(0, 99).Draw(rt, "value")
					log = append(log, fmt.Sprint("setSequence ", name, value))
					if err := tx.ExecLast("sequence/"+name, updateSequence, value, name); err != nil {
						return err
					}
					continue
				}
				s := rapid.SampledFrom(steps).Draw(rt, "step")
				args := s.args(rt)
				log = append(log, fmt.Sprintf("%s: %s %q", s.name, s.query, args))
				if _, err := tx.Exec(s.query, args...); err != nil {
					return err
				}
			}
			if rapid.IntRange(0, 9).Draw(rt, "refuse") == 0 {
				return Refuse(Conflict, "as drawn")
			}
			return nil
		})
	}
	// Children without a parent would be refused at COMMIT, with reason and on both sides.
	request(func(tx *Tx) error {
		_, err := tx.Exec("DELETE FROM children WHERE parent NOT IN (SELECT id FROM parents)")
		return err
	})
	a.exec("COMMIT")
	text, err := work.text()
	if err != nil {
		rt.Fatalf("text: %v\n%s", err, strings.Join(log, "\n"))
	}
	if _, err := b.s.conn.ExecContext(bg, text); err != nil {
		_, _ = b.s.exec("ROLLBACK")
		rt.Fatalf("dqlite would refuse the batch: %v\n%s\n--- script\n%s", err, strings.Join(log, "\n"), text)
	}
	if err := enginetest.Difference(contents(a.t, a.s), contents(b.t, b.s)); err != nil {
		rt.Fatalf("%v\n%s\n--- script\n%s", err, strings.Join(log, "\n"), text)
	}
	return recorded - len(work.groups) - len(work.last)
}

// The shortest histories in which an insert must not go back to the ones before it.
func TestScriptKeepsOrder(t *testing.T) {
	type step struct {
		query string
		args  []any
	}
	parent := func(id string) step { return step{"INSERT INTO parents (id, n) VALUES (?, ?)", []any{id, int64(1)}} }
	child := func(seq int64, parent string) step {
		return step{"INSERT INTO children (seq, parent, n) VALUES (?, ?, ?)", []any{seq, parent, seq}}
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"delete between", []step{parent("a"), {"DELETE FROM parents WHERE id = ?", []any{"a"}}, parent("a")}},
		{"update between", []step{parent("a"), {"UPDATE parents SET n = ?", []any{int64(9)}}, parent("b")}},
		{"upsert between", []step{parent("a"),
			{"INSERT INTO parents (id, n) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET id = id || '2'",
				[]any{"a", int64(0)}}, parent("a")}},
		{"read between", []step{parent("a"), {"INSERT INTO children (seq, n) SELECT ?, count(*) FROM parents",
			[]any{int64(1)}}, parent("b")}},
		{"delete that cascades between", []step{parent("a"), child(1, "a"), {"DELETE FROM parents WHERE id = ?", []any{"a"}},
			parent("a"), child(2, "a")}},
		{"delete that cascades to the same key",
			[]step{parent("a"), child(1, "a"), {"DELETE FROM parents WHERE id = ?", []any{"a"}}, parent("a"), child(1, "a")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			schema := fmt.Sprintf(scriptSchema, "ON DELETE CASCADE")
			one, two := memoryDB(t), memoryDB(t)
			for _, db := range []*sql.DB{one, two} {
				if _, err := db.Exec(schema); err != nil {
					t.Fatal(err)
				}
			}
			var work script
			for _, s := range c.steps {
				if _, err := one.Exec(s.query, s.args...); err != nil {
					t.Fatal(err)
				}
				work.add(Statement{Query: s.query, Args: s.args})
			}
			text, err := work.text()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := two.Exec(text); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if err := enginetest.Difference(contents(t, newBench(t, one).s), contents(t, newBench(t, two).s)); err != nil {
				t.Errorf("%v: %s", err, text)
			}
		})
	}
}

// The rearrangement is there for speed: many requests of a kind must cost few statements.
func TestScriptMerges(t *testing.T) {
	var work script
	for i := range 50 {
		work.add(Statement{Query: "INSERT INTO parents (id, n) VALUES (?, ?)", Args: []any{fmt.Sprint(i), int64(i)}})
		work.add(Statement{Query: "INSERT INTO children (seq, parent, n) VALUES (?, ?, ?)",
			Args: []any{int64(i), fmt.Sprint(i), int64(i)}})
		work.add(Statement{Query: updateSequence, Args: []any{int64(i), "a"}, key: "sequence/a"})
	}
	text, err := work.text()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text, ";"); n != 4 {
		t.Errorf("%d statements in %s", n, text)
	}
	if !strings.HasPrefix(text, "BEGIN;") || !strings.HasSuffix(text, ";COMMIT") ||
		!strings.Contains(text, "SET value = 49 WHERE name = 'a'") {
		t.Error(text)
	}
}

// Every value that a statement takes comes back from the database as it went in.
func TestInlineRoundTrip(t *testing.T) {
	db := memoryDB(t)
	text := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.RuneFrom([]rune("'\"`-/*?;\\\x00\n\r\t日𝄞\ufeff\u202e$@:1")),
		0, 20, -1),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	number := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, -1, 1, 1<<63 - 1, -1 << 63, -1<<63 + 1, 1<<53 + 1}))
	value := rapid.OneOf(rapid.Map(text, func(s string) any { return s }),
		rapid.Map(number, func(n int64) any { return n }),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) any { return append([]byte{}, b...) }), rapid.Just[any](nil))
	rapid.Check(t, func(rt *rapid.T) {
		args := rapid.SliceOfN(value, 1, 8).Draw(rt, "args")
		var b strings.Builder
		if err := inline(&b, "SELECT ?"+strings.Repeat(", ?", len(args)-1), args); err != nil {
			rt.Fatal(err)
		}
		if strings.IndexByte(b.String(), 0) >= 0 {
			rt.Fatalf("a NUL ends the statement early: %q", b.String())
		}
		got, into := make([]any, len(args)), make([]any, len(args))
		for i := range got {
			into[i] = &got[i]
		}
		if err := db.QueryRow(b.String()).Scan(into...); err != nil {
			rt.Fatalf("%q: %v", b.String(), err)
		}
		for i := range args {
			if fmt.Sprintf("%T %q", got[i], got[i]) != fmt.Sprintf("%T %q", args[i], args[i]) {
				rt.Fatalf("argument %d: %T %q came back as %T %q", i, args[i], args[i], got[i], got[i])
			}
		}
	})
}

// SQLite itself says what a statement with bound arguments means; the inlined text must mean the same.
func TestInlinePlaceholders(t *testing.T) {
	db := memoryDB(t)
	for _, c := range []struct {
		name  string
		query string
		args  []any
	}{
		{"in a literal", "SELECT 'a ? b' || ?", []any{"x"}},
		{"in a literal with a doubled quote", "SELECT 'it''s ?' || ? || '?'''", []any{"x"}},
		{"empty literal", "SELECT '' || ? || ''", []any{"?"}},
		{"in a quoted name", `SELECT v AS "a ""?" FROM (SELECT ? AS v)`, []any{"x"}},
		{"in a name in backticks", "SELECT v AS `?` FROM (SELECT ? AS v)", []any{"x"}},
		{"in a line comment", "SELECT ? -- why? it's so\n || ?", []any{"x", "y"}},
		{"in a line comment at the end", "SELECT ? -- why?", []any{"x"}},
		{"value with a placeholder", "SELECT ? || ?", []any{"? '?", "b"}},
		{"value with a comment", "SELECT ? || ?", []any{"-- ?", "/* ? */"}},
		{"in a block comment", "SELECT ? /* why? it's so */ || ?", []any{"x", "y"}},
		{"negative after minus", "SELECT 5 -?", []any{int64(-3)}},
		{"numbered", "SELECT ?2 || ?1 || ?2", []any{"a", "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want, got any
			if err := db.QueryRow(c.query, c.args...).Scan(&want); err != nil {
				t.Fatal("bound:", err)
			}
			var b strings.Builder
			if err := inline(&b, c.query, c.args); err != nil {
				t.Fatal(err)
			}
			if err := db.QueryRow(b.String()).Scan(&got); err != nil {
				t.Fatalf("%s: %v", b.String(), err)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s gives %v, bound arguments give %v", b.String(), got, want)
			}
		})
	}
}

func TestInlineRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		query string
		args  []any
	}{
		{"too few arguments", "SELECT ?, ?", []any{int64(1)}},
		{"no arguments", "SELECT ?", nil},
		{"too many arguments", "SELECT ?", []any{int64(1), int64(2)}},
		{"arguments for a placeholder in a literal", "SELECT '?'", []any{int64(1)}},
		{"arguments for a placeholder in a comment", "SELECT 1 -- ?", []any{int64(1)}},
		{"a type of Go", "SELECT ?", []any{3.5}},
		{"an int that was not normalised", "SELECT ?", []any{3}},
	} {
		var b strings.Builder
		if err := inline(&b, c.query, c.args); err == nil {
			t.Errorf("%s: accepted as %s", c.name, b.String())
		}
	}
}
