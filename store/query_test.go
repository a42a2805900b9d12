package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/store/foreign"
)

// queryBench is a file like a member's mirror.
func queryBench(t testing.TB) string {
	t.Helper()
	b := foundedBench(t, "10.200.0.0/16", 20)
	path := filepath.Join(t.TempDir(), "muster.db")
	b.exec("VACUUM INTO ?", path)
	return path
}

const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "

// What a query may not do is refused, in a sentence that says what it is; nothing is written anywhere.
func TestQueryRefuses(t *testing.T) {
	t.Parallel()
	path := queryBench(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "stolen.db")
	wide := strings.TrimSuffix(strings.Repeat("1,", 101), ",")
	doubling := "WITH t0(x) AS (SELECT 1)"
	for i := 1; i < 40; i++ {
		doubling += fmt.Sprintf(", t%d(x) AS (SELECT a.x FROM t%d a, t%d b)", i, i-1, i-1)
	}
	for query, want := range map[string]string{
		"DELETE FROM members": "must only read", "UPDATE cluster SET revision = 1": "must only read",
		"DROP TABLE members":                      "must only read",
		"INSERT INTO settings VALUES ('a','b',1)": "must only read", "CREATE TABLE x (y)": "must only read",
		"CREATE TEMP TABLE x (y)":                   "must only read",
		"CREATE VIRTUAL TABLE temp.x USING fts4(y)": "must only read", "REINDEX": "must only read",
		"ANALYZE":                         "must only read",
		"ALTER TABLE members RENAME TO x": "", "BEGIN IMMEDIATE": "one statement", "SAVEPOINT a": "one statement",
		"VACUUM": "", "VACUUM INTO '" + outside + "'": "", "ATTACH '" + outside + "' AS x": "attached",
		"ATTACH ':memory:' AS x": "attached", "DETACH main": "attached",
		"SELECT 1; SELECT 2": "one statement", "SELECT 1;;SELECT 2": "one statement",
		"/* a */ SELECT 1; -- b\nSELECT 2":  "one statement",
		"SELECT 1\x00; DELETE FROM members": "NUL", "SELECT 'a\x00b'": "NUL",
		"SELECT 1; DELETE FROM members": "must only read", "CREATE TEMP TABLE x AS SELECT 1; SELECT 1": "must only read",
		"PRAGMA hard_heap_limit": "PRAGMA hard_heap_limit", "PRAGMA hard_heap_limit = 1": "PRAGMA hard_heap_limit",
		"PRAGMA soft_heap_limit(1)":         "PRAGMA",
		"PRAGMA temp_store_directory = '/'": "PRAGMA", "PRAGMA data_store_directory = '/'": "PRAGMA",
		"PRAGMA temp_store = 1": "PRAGMA", "PRAGMA query_only = 0": "PRAGMA",
		"PRAGMA writable_schema = 1": "PRAGMA", "PRAGMA trusted_schema = 1": "PRAGMA",
		"PRAGMA mmap_size = 1000000000": "PRAGMA", "PRAGMA cache_size = 1000000": "PRAGMA",
		"PRAGMA database_list": "PRAGMA", "PRAGMA wal_checkpoint": "PRAGMA", "PRAGMA journal_mode = WAL": "PRAGMA",
		"PRAGMA user_version = 5": "PRAGMA user_version",
		"PRAGMA threads = 8":      "PRAGMA", "PRAGMA main.optimize": "PRAGMA", "PRAGMA integrity_check": "PRAGMA",
		"PRAGMA shrink_memory": "PRAGMA", "PRAGMA unknown": "PRAGMA unknown",
		"PRAGMA 'hard_heap_limit' = 1": "PRAGMA", "PRAGMA HARD_HEAP_LIMIT = 1": "PRAGMA",
		"EXPLAIN PRAGMA hard_heap_limit = 1":   "PRAGMA",
		"SELECT * FROM pragma_hard_heap_limit": "", "SELECT * FROM pragma_database_list": "",
		"SELECT * FROM pragma_integrity_check": "",
		"SELECT load_extension('/x')":          "load_extension", "SELECT readfile('/etc/passwd')": "readfile",
		"SELECT writefile('/x', 'y')": "writefile", "SELECT edit('x')": "edit",
		"SELECT sqlite_log(1, 'x')": "sqlite_log", "SELECT fts3_tokenizer('x', x'00')": "",
		"SELECT zeroblob(300000000)": "zeroblob", "SELECT randomblob(300000000)": "randomblob",
		"SELECT unhex('00', '1')": "unhex", "SELECT rtreecheck('x')": "", "SELECT trim('a', 'b')": "one argument",
		"SELECT * FROM rtree": "", "SELECT * FROM fts3tokenize": "", "SELECT * FROM sqlite_dbpage": "",
		"SELECT * FROM dbstat":            "",
		"SELECT printf('%300000000d', 1)": "", "SELECT format('%.*c', 300000000, 'x')": "",
		"SELECT hex(printf('%200000d', 1))": "too big", "SELECT replace(printf('%200000d', 1), ' ', 'abc')": "too big",
		"SELECT printf('%200000d', 1) || printf('%200000d', 1)":                                          "too big",
		"SELECT quote(printf('%262140d', 1) || '''''''')":                                                "",
		endless + "SELECT group_concat(i) FROM n":                                                        "too long",
		endless + "SELECT json_group_array(i) FROM n":                                                    "",
		endless + "SELECT count(*) FROM n":                                                               "too long",
		endless + "SELECT i FROM n ORDER BY -i":                                                          "too much memory",
		endless + "SELECT count(*) FROM (SELECT DISTINCT printf('%100000d', i) FROM n)":                  "too much memory",
		endless + "SELECT printf('%200000d', i) p FROM n ORDER BY p":                                     "too much memory",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n) SELECT count(*) FROM n":             "too much memory",
		"WITH RECURSIVE n(i) AS (SELECT '' UNION ALL SELECT i || 'aaaaaaa' FROM n) SELECT max(i) FROM n": "too big",
		"WITH d AS MATERIALIZED (" + endless + "SELECT i FROM n) SELECT count(*) FROM d, d":              "",
		doubling + " SELECT count(*) FROM t39":                                                           "",
		"SELECT " + wide:                                                                                 "too many columns",
		"SELECT ?":                                                                                       "", "SELECT :a": "",
		"SELECT ?9999": "",
		"SELECT " + strings.Repeat("(", 3000) + "1" + strings.Repeat(")", 3000): "", "SELECT 1" +
			strings.Repeat("+1", 3000): "depth",
		"SELECT 1" + strings.Repeat(" UNION ALL SELECT 1", 200): "compound", "SELECT max(" + wide + ")": "too many arguments",
		"SELECT 1 WHERE 'a' LIKE '" + strings.Repeat("%a", 300) + "'": "too complex", "SELECT 1 WHERE 'a' GLOB '" +
			strings.Repeat("*a", 300) + "'": "too complex",
		"SELECT count(*) FROM members" + strings.Repeat(", members", 70): "join",
		"SELECT 1 WHERE 1 IN (" + strings.Repeat("1,", 49_980) + "1":     "", "nonsense": "syntax",
		"SELECT * FROM nowhere": "no such table", "SELECT": "",
	} {
		limit := time.Minute // whatever ends earlier, does so by another limit
		if want == "too long" {
			limit = time.Second
		}
		ctx, cancel := context.WithTimeout(bg, limit)
		begin := time.Now()
		a, err := foreign.Query(ctx, path, query, 10)
		cancel()
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("%.80s: took %v", query, took)
		}
		var refusal *Refusal
		if !errors.As(err, &refusal) {
			t.Errorf("%.80s: %.100v, %v", query, a, err)
			continue
		}
		if strings.HasPrefix(query, "WITH") && strings.Contains(refusal.Message, "too long") { // on a slow machine
			continue
		}
		if !strings.HasPrefix(refusal.Message, "query") || !strings.Contains(refusal.Message, want) ||
			strings.Contains(refusal.Message, path) {
			t.Errorf("%.80s: %q, want %q", query, refusal.Message, want)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Error("a query has changed the file", err)
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a query has written a file")
	}
}

// What operators ask works, and each limit of the answer is said in it.
func TestQueryAnswers(t *testing.T) {
	t.Parallel()
	path := queryBench(t)
	for query, want := range map[string]string{
		"SELECT node FROM v_members": "[[1]]", "SELECT count(*) > 0, max(trim(' a ')) FROM v_audit": "[[1 a]]",
		"SELECT x'00ff', NULL, 1.5, 9007199254740993, 'x', 1e999": "[[00ff <nil> 1.5 9007199254740993 x +Inf]]",
		"SELECT name FROM pragma_table_info('cluster') WHERE pk":  "[[one]]", "PRAGMA page_size": "[[4096]]",
		"PRAGMA main.user_version":                                             "[[0]]",
		"SELECT count(*) FROM sqlite_master WHERE name = 'members'":            "[[1]]",
		"SELECT value FROM json_each('[7,8]')":                                 "[[7] [8]]",
		"SELECT upper(substr('abc', 2)) || printf('%03d', 7)":                  "[[BC007]]",
		"SELECT 'abc' LIKE 'A%', 'abc' GLOB 'a*'":                              "[[1 1]]",
		"SELECT row_number() OVER (ORDER BY revision, seq) FROM audit LIMIT 1": "[[1]]", "-- nothing": "[]",
		"SELECT strftime('%Y', '2030-01-02')": "[[2030]]", "SELECT instr('abc', 'c'), replace('abc', 'b', 'x')": "[[3 axc]]",
	} {
		a, err := foreign.Query(bg, path, query, 10)
		if err != nil || fmt.Sprint(a.Rows) != want || a.Truncated {
			t.Errorf("%s: %v %v %v, want %s", query, a.Rows, a.Truncated, err, want)
		}
	}
	for _, view := range []string{"v_members", "v_tokens", "v_enrollments", "v_peerings", "v_keys", "v_audit",
		"v_authorities", "v_certificates"} {
		if _, err := foreign.Query(bg, path, "SELECT * FROM "+view, 10); err != nil {
			t.Errorf("%s: %v", view, err)
		}
	}
	if a, err := foreign.Query(bg, path, endless+"SELECT i FROM n", 10); err != nil || len(a.Rows) != 10 || !a.Truncated {
		t.Errorf("rows: %d %v %v", len(a.Rows), a.Truncated, err)
	}
	a, err := foreign.Query(bg, path, endless+"SELECT printf('%100000d', i) FROM n", 10_000)
	if err != nil || len(a.Rows) != foreign.MaxAnswer/100_008 || !a.Truncated {
		t.Errorf("bytes: %d rows %v %v", len(a.Rows), a.Truncated, err)
	}
}

// A query ends soon after its deadline or its caller, whatever it does at that moment.
func TestQueryEnds(t *testing.T) {
	t.Parallel()
	path := queryBench(t)
	half := "printf('%.*c', 131000, 'a')"
	for _, query := range []string{
		endless + "SELECT count(*) FROM n",
		endless + "SELECT sum(instr(" + half + " || i, " + half + " || 'b')) FROM n",
		endless + "SELECT count(*) FROM n WHERE " + half + " || i LIKE '" + strings.Repeat("%a_", 100) + "b'",
		"SELECT count(*) FROM audit a, audit b, audit c, audit d, audit e, audit f, audit g, pragma_function_list h, " +
			"pragma_function_list i, pragma_function_list j, pragma_function_list k",
	} {
		for name, end := range map[string]func() (context.Context, context.CancelFunc){
			"deadline": func() (context.Context, context.CancelFunc) { return context.WithTimeout(bg, 300*time.Millisecond) },
			"caller": func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(bg)
				time.AfterFunc(300*time.Millisecond, cancel)
				return ctx, cancel
			},
		} {
			ctx, cancel := end()
			begin := time.Now()
			_, err := foreign.Query(ctx, path, query, 10)
			cancel()
			if took := time.Since(begin); err == nil || took > 20*time.Second {
				t.Errorf("%s, %.80s: %v after %v", name, query, err, took)
			} else {
				t.Logf("%s, %.80s: %v after %v", name, query, err, took.Round(time.Millisecond))
			}
		}
	}
}
