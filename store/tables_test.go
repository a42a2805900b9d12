package store

import (
	"slices"
	"strings"
	"testing"

	"muster/store/engine"

	"pgregory.net/rapid"
)

// Every table of the schema is registered, with every sealed column; and the statements that are made of the schema and
// the registry are as good as literals: SQLite prepares them, dqlite can be sent them, the change feed names the right
// table.
func TestRegistry(t *testing.T) {
	b := newBench(t, migratedDB(t))
	v := b.view()
	tables := map[string]bool{}
	for name := range contents(t, v) {
		if name == "goose_db_version" || strings.HasPrefix(name, "sqlite_") {
			continue
		}
		tables[name] = true
		tb, err := v.v.Table(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range unregistered(registeredTable(name), &tb) {
			t.Error(fault)
		}
		checkMade(t, b, registeredTable(name), &tb)
	}
	seen := map[string]bool{}
	for _, r := range registry {
		if !tables[r.name] || seen[r.name] {
			t.Errorf("%s is registered twice or is no table", r.name)
		}
		seen[r.name] = true
	}
	if _, err := v.get(countSealed, []any{int64(1)}, new(int)); err != nil {
		t.Errorf("%s: %v", countSealed, err)
	}
}

// unregistered says what the registry lacks of a table.
func unregistered(r *registered, tb *engine.Table) (faults []string) {
	if r == nil {
		return []string{tb.Name + " is not in the registry: does a restore bring it back or leave it alone?"}
	}
	for _, c := range tb.Columns {
		if strings.HasPrefix(c, "sealed") && (r.sealed == nil || r.sealed.column != c) {
			faults = append(faults, tb.Name+"."+c+" is not registered as sealed: it would not be re-encrypted")
		}
		if c == "dek_generation" && r.sealed == nil {
			faults = append(faults, tb.Name+" has a generation and no sealed column is registered")
		}
	}
	if r.sealed != nil && (!slices.Contains(tb.Columns, r.sealed.column) ||
		!slices.Contains(tb.Columns, "dek_generation")) {
		faults = append(faults, tb.Name+" lacks its sealed column or the generation beside it")
	}
	return faults
}

// A table or a sealed column that somebody adds and does not register is found.
func TestUnregistered(t *testing.T) {
	plain, secret := &registered{name: "t", fate: kept}, &registered{name: "t", fate: kept,
		sealed: &sealed{column: "sealed"}}
	for what, x := range map[string]struct {
		r       *registered
		columns []string
		faults  int
	}{
		"a table":           {nil, []string{"id"}, 1},
		"a sealed column":   {plain, []string{"id", "sealed_key", "dek_generation"}, 2},
		"a second one":      {secret, []string{"id", "sealed", "sealed_too", "dek_generation"}, 1},
		"one that is gone":  {secret, []string{"id", "dek_generation"}, 1},
		"as it should be":   {secret, []string{"id", "sealed", "dek_generation"}, 0},
		"without a secret":  {plain, []string{"id"}, 0},
		"without its place": {secret, []string{"id", "sealed"}, 1},
	} {
		if got := unregistered(x.r, &engine.Table{Name: "t", Columns: x.columns}); len(got) != x.faults {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func checkMade(t *testing.T, b *bench, r *registered, tb *engine.Table) {
	t.Helper()
	made := map[string]int{tb.SelectAll(): 0, tb.Insert(): len(tb.Columns), tb.Upsert(): len(tb.Columns),
		tb.Remove(): len(tb.Key)}
	if r != nil && r.sealed != nil {
		made[r.find(tb)], made[r.update(tb)] = 2, 3+len(tb.Key)
	}
	for query, args := range made {
		st, err := b.s.Conn().PrepareContext(bg, query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		st.Close()
		if engine.TableOf(query) != tb.Name {
			t.Errorf("%s: the change feed would name %q", query, engine.TableOf(query))
		}
		if _, err := engine.Inline(query, make([]any, args)); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
	if !engine.PlainInsert(tb.Insert()) {
		t.Errorf("%s is not a plain insert", tb.Insert())
	}
}

// Rows differ when any value does, in whatever way; which revision last changed them does not count.
func TestDigest(t *testing.T) {
	tb := engine.Table{Name: "t", Columns: []string{"id", "a", "b", "modified_rev"}, Key: []int{0}, Changed: 3}
	value := rapid.OneOf(rapid.Just[any](nil),
		rapid.Map(rapid.SampledFrom([]string{"", "0", "a", "ab"}), func(s string) any { return s }),
		rapid.Map(rapid.Int64Range(0, 2), func(n int64) any { return n }))
	rapid.Check(t, func(t *rapid.T) {
		x := []any{"k", value.Draw(t, "a"), value.Draw(t, "b"), int64(1)}
		y := []any{"k", value.Draw(t, "a"), value.Draw(t, "b"), int64(2)}
		same := x[1] == y[1] && x[2] == y[2]
		// A column has one type (STRICT), so a number and a text that look alike cannot meet.
		for i := 1; i < 3; i++ {
			_, m := x[i].(int64)
			_, n := y[i].(int64)
			if m != n && x[i] != nil && y[i] != nil {
				return
			}
		}
		if got := tb.Digest(x) == tb.Digest(y); got != same {
			t.Fatalf("%v and %v: same %v", x, y, got)
		}
	})
}

func TestDiagnose(t *testing.T) {
	for _, x := range [][2]string{
		{"load closed segment 0000000000000042-0000000000000100: found 58 entries (expected 59)", "fewer or more entries"},
		{"closed segment 0000000000000300-0000000000000310 is past last snapshot snapshot-2-256-99", "are missing"},
		{"load open segment open-1: read preamble: no space left on device", "no room on the disk"},
		{"raft_start(): io: unexpected closed segment 0000000000000769-0000000000000988: first index should have been 1",
			"are missing"},
		{"raft_start(): io: short read: 0 bytes instead of 1101864", "is damaged"},
		{"load open segment open-3: read header: short", "is damaged"},
		{"uv_loop_init(): too many open files", "too few files"},
		{"dqlite does not start: raft_start(): io: load closed segment 1-1: read file: open: permission denied",
			"another user"},
		{"dqlite does not start: raft_bootstrap(): ", "no reason"},
		{"dqlite does not start: ", "no reason"},
		{"entries batch 3 starting at byte 8: data checksum mismatch", "is damaged"},
	} {
		text, want := x[0], x[1]
		got, known := Diagnose(errText(text))
		if !known || !strings.Contains(got.What, want) || got.Next == "" {
			t.Errorf("%s: %+v, want %q", text, got, want)
		}
	}
	if d, known := Diagnose(errText("something else")); known {
		t.Errorf("%+v", d)
	}
}

type errText string

func (e errText) Error() string { return string(e) }
