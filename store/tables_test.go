package store

import (
	"slices"
	"strings"
	"testing"

	"muster/store/engine"

	"pgregory.net/rapid"
)

// Every table of the schema is either restored or kept, and the statements that are made of the schema are as good as
// literals: SQLite prepares them, dqlite can be sent them, the change feed names the right table.
func TestTables(t *testing.T) {
	b := newBench(t, migratedDB(t))
	v := b.view()
	for name := range contents(t, b.view()) {
		if name == "goose_db_version" || strings.HasPrefix(name, "sqlite_") {
			continue
		}
		if slices.Contains(restoredTables, name) == slices.Contains(keptTables, name) {
			t.Errorf("%s must be in one of the two lists: does a restore bring it back or leave it alone?", name)
		}
		tb, err := v.v.Table(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(tb.Columns) == 0 {
			t.Fatalf("%s has no columns", name)
		}
		for query, args := range map[string]int{tb.SelectAll(): 0, tb.Insert(): len(tb.Columns), tb.Upsert(): len(tb.Columns), tb.Remove(): len(tb.Key)} {
			st, err := b.s.Conn().PrepareContext(bg, query)
			if err != nil {
				t.Errorf("%s: %v", query, err)
				continue
			}
			st.Close()
			if engine.TableOf(query) != name {
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
	for _, name := range slices.Concat(restoredTables, keptTables) {
		if tb, err := v.v.Table(name); err != nil || len(tb.Columns) == 0 {
			t.Errorf("there is no table %s: %v", name, err)
		}
	}
}

// Rows differ when any value does, in whatever way; which revision last changed them does not count.
func TestDigest(t *testing.T) {
	tb := engine.Table{Name: "t", Columns: []string{"id", "a", "b", "modified_rev"}, Key: []int{0}, Changed: 3}
	value := rapid.OneOf(rapid.Just[any](nil), rapid.Map(rapid.SampledFrom([]string{"", "0", "a", "ab"}), func(s string) any { return s }),
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
	for text, want := range map[string]string{
		"load closed segment 0000000000000042-0000000000000100: found 58 entries (expected 59)":    "fewer or more entries",
		"closed segment 0000000000000300-0000000000000310 is past last snapshot snapshot-2-256-99": "are missing",
		"load open segment open-1: read preamble: no space left on device":                         "no room on the disk",
		"entries batch 3 starting at byte 8: data checksum mismatch":                               "is damaged",
	} {
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
