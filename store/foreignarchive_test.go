package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/store/foreign"
	"muster/store/sizes"
)

// Nothing in an archive's database runs: whatever has another schema than ours is refused before.
func TestForeignSchemas(t *testing.T) {
	t.Parallel()
	state := queryBench(t)
	const loop = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
	for name, statements := range map[string][]string{
		"trigger without end": {"CREATE TRIGGER x AFTER DELETE ON idempotency BEGIN DELETE FROM idempotency WHERE (" + loop +
			"); END"},
		"trigger on all":      {"CREATE TRIGGER x BEFORE INSERT ON members BEGIN " + loop + "; END"},
		"our trigger dropped": {"DROP TRIGGER cluster_revision"},
		"our trigger changed": {"DROP TRIGGER cluster_revision",
			"CREATE TRIGGER cluster_revision BEFORE UPDATE OF revision ON cluster BEGIN " + loop + "; END"},
		"view of a table": {"ALTER TABLE settings RENAME TO old",
			"CREATE VIEW settings AS SELECT name, value, modified_rev FROM old WHERE (" + loop + ")"},
		"our view changed": {"DROP VIEW v_members", "CREATE VIEW v_members AS " + loop},
		"generated column": {"ALTER TABLE secrets ADD COLUMN x TEXT GENERATED ALWAYS AS (hex(zeroblob(100000000))) VIRTUAL"},
		"check": {"PRAGMA writable_schema = 1",
			"UPDATE sqlite_master SET sql = replace(sql, 'json_valid(labels)', 'length(zeroblob(100000000))') WHERE name = " +
				"'members'"},
		"default": {"PRAGMA writable_schema = 1",
			"UPDATE sqlite_master SET sql = replace(sql, '''{}''', '(hex(zeroblob(1000)))') WHERE name = 'members'"},
		"virtual table":    {"CREATE VIRTUAL TABLE x USING fts4(y)"},
		"virtual for ours": {"DROP TABLE leases", "CREATE VIRTUAL TABLE leases USING rtree(id, a, b)"},
		"expression index": {"CREATE INDEX x ON settings (hex(value || printf('%1000000d', 1)))"},
		"partial index":    {"CREATE INDEX x ON settings (value) WHERE json_valid(value)"},
		"index dropped":    {"DROP INDEX members_by_role"},
		"table dropped":    {"DROP TABLE leases"},
		"one table more":   {"CREATE TABLE x (y)"},
		"statistics":       {"ANALYZE"},
		"collation":        {"CREATE TABLE x (y TEXT COLLATE NOCASE UNIQUE)"},
		"text is no schema": {"PRAGMA writable_schema = 1",
			"UPDATE sqlite_master SET sql = 'CREATE TABLE members(' WHERE name = 'members'"},
		"blob as schema": {"PRAGMA writable_schema = 1",
			"UPDATE sqlite_master SET sql = zeroblob(1000000) WHERE name = 'members'"},
		"a long schema": {"PRAGMA writable_schema = 1",
			"UPDATE sqlite_master SET sql = sql || printf('%10000000d', 1) WHERE name = 'members'"},
		"many objects": {"PRAGMA writable_schema = 1",
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) INSERT INTO sqlite_master SELECT " +
				"'view', 'x' || i, 'x' || i, 0, 'CREATE VIEW x' || i || ' AS SELECT 1' FROM n"},
	} {
		x := changed(t, state, statements...)
		archive := archiveOf(t, x, nil)
		refusedArchive(t, name, bytes.NewReader(archive), testLimits, "the archive's state")
	}
}

// Damage, lies about versions and rows that break our own rules are found.
func TestForeignStates(t *testing.T) {
	t.Parallel()
	state := queryBench(t)
	data, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(change func([]byte) []byte) string {
		path := filepath.Join(t.TempDir(), "state.bin")
		if err := os.WriteFile(path, change(bytes.Clone(data)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pages := func(n byte) func([]byte) []byte {
		return func(b []byte) []byte { b[28], b[29], b[30], b[31] = n, 0xff, 0xff, 0xfe; return b }
	}
	for name, path := range map[string]string{
		"no database": edit(func([]byte) []byte { return []byte("hello") }),
		"empty":       edit(func([]byte) []byte { return nil }),
		"header only": edit(func(b []byte) []byte { return b[:100] }),
		"half":        edit(func(b []byte) []byte { return b[:len(b)/2] }),
		"many pages":  edit(pages(0xff)),
		"some pages":  edit(pages(0)),
		"page size":   edit(func(b []byte) []byte { b[16], b[17] = 0, 1; return b }),
		"zeros":       edit(func(b []byte) []byte { return append(b[:4096], make([]byte, len(b)-4096)...) }),
		"noise": edit(func(b []byte) []byte {
			for i := 8192; i < len(b); i += 7 {
				b[i] ^= 0x5a
			}
			return b
		}),
		"broken check": changed(t, state, "PRAGMA ignore_check_constraints = 1", "UPDATE members SET labels = 'no'"),
		"broken link": changed(t, state, "PRAGMA foreign_keys = 0",
			"INSERT INTO join_token_uses VALUES ('none', 1, NULL, 'x', 'y')"),
		"one root twice": changed(t, state, "PRAGMA writable_schema = 1",
			"UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'settings') WHERE name = "+
				"'secrets'"),
	} {
		refusedArchive(t, name, bytes.NewReader(archiveOf(t, path, nil)), testLimits, "")
	}
	for name, change := range map[string]func(*ArchiveMeta){
		"newer":     func(m *ArchiveMeta) { m.Schema = LatestSchema() + 1 },
		"version 0": func(m *ArchiveMeta) { m.Schema = 0 },
		"negative":  func(m *ArchiveMeta) { m.Schema = -5 },
		"revision":  func(m *ArchiveMeta) { m.Index++ },
		"cluster":   func(m *ArchiveMeta) { m.ClusterID = "other" },
		"format":    func(m *ArchiveMeta) { m.Version = 9 },
	} {
		refusedArchive(t, name, bytes.NewReader(archiveOf(t, state, change)), testLimits, "the archive")
	}
}

// zeros returns an archive whose state announces a size and is zeros without end.
func zeros(t *testing.T, size int64) io.Reader {
	t.Helper()
	zipped := func(write func(io.Writer) error) []byte {
		var out bytes.Buffer
		zip := gzip.NewWriter(&out)
		if err := errors.Join(write(zip), zip.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	head := zipped(func(w io.Writer) error {
		return tar.NewWriter(w).WriteHeader(&tar.Header{Name: archiveState, Typeflag: tar.TypeReg, Mode: 0o600, Size: size})
	})
	part := zipped(func(w io.Writer) error {
		_, err := w.Write(make([]byte, 1<<20))
		return err
	})
	return io.MultiReader(bytes.NewReader(head), &repeated{part: part})
}

// The parts of an archive are what a snapshot has: sizes before bytes, each name once, plain files.
func TestForeignArchives(t *testing.T) {
	t.Parallel()
	state := queryBench(t)
	data, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := describe(state)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	sums := func(list ...tarFile) tarFile {
		var b strings.Builder
		for _, f := range list {
			fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(f.data), f.Name)
		}
		return regular(archiveSums, []byte(b.String()))
	}
	m, s := regular(archiveMeta, text), regular(archiveState, data)
	good := packed(t, m, s, sums(m, s))
	if a, err := ReadArchive(bg, bytes.NewReader(good), t.TempDir(), testLimits); err != nil {
		t.Fatal("a good archive:", err)
	} else {
		x, err := openScratch(bg, a, LatestSchema())
		if err != nil {
			t.Fatal("a good archive:", err)
		}
		own := newBench(t, migratedDB(t))
		if got, want := contents(t, x.view())["sqlite_master"], contents(t,
			own.view())["sqlite_master"]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Error("the copy has another schema")
		}
		x.close()
		a.Close()
	}
	kind := func(f tarFile, flag byte) tarFile {
		f.Typeflag, f.Linkname, f.data = flag, "/etc/passwd", nil
		return f
	}
	named := func(name string) tarFile { return regular(name, []byte("x")) }
	huge := tarFile{tar.Header{Name: archiveState, Typeflag: tar.TypeReg, Mode: 0o600, Size: 1 << 40}, data}
	trailing := func() []byte {
		var out bytes.Buffer
		zip := gzip.NewWriter(&out)
		plain, _ := gzip.NewReader(bytes.NewReader(good))
		_, _ = io.Copy(zip, plain)
		block := make([]byte, 1<<20)
		for range 8 {
			_, _ = zip.Write(block)
		}
		zip.Close()
		return out.Bytes()
	}
	for name, x := range map[string]struct {
		archive []byte
		want    string
	}{
		"nothing": {nil, "failed to decompress"}, "no gzip": {[]byte("hello"), "failed to decompress"},
		"half":                          {good[:len(good)/2], "failed to decompress"},
		"no sum of the compressed data": {good[:len(good)-6], "failed to decompress"},
		"empty tar":                     {packed(t), "it has no meta.json"},
		"no state":                      {packed(t, m, sums(m)), "it has no state.bin"},
		"no sums":                       {packed(t, m, s), "it has no SHA256SUMS"},
		"no meta":                       {packed(t, s, sums(s)), "it has no meta.json"},
		"wrong sum":                     {packed(t, m, s, sums(m, regular(archiveState, nil))), "checksum of state.bin"},
		"state twice":                   {packed(t, m, s, s, sums(m, s)), "a wrong type or size"},
		"meta twice":                    {packed(t, m, m, s, sums(m, s)), "a wrong type or size"},
		"sums twice":                    {packed(t, m, s, sums(m, s), sums(m, s)), "a wrong type or size"},
		"a link":                        {packed(t, m, kind(s, tar.TypeSymlink)), "a wrong type or size"},
		"a hard link":                   {packed(t, m, kind(s, tar.TypeLink)), "a wrong type or size"},
		"a directory":                   {packed(t, m, kind(s, tar.TypeDir)), ""},
		"a device":                      {packed(t, m, kind(s, tar.TypeChar)), "a wrong type or size"},
		"a pipe":                        {packed(t, m, kind(s, tar.TypeFifo)), "a wrong type or size"},
		"a path upwards":                {packed(t, m, named("../state.bin")), "it holds"},
		"an absolute path":              {packed(t, m, named("/state.bin")), "it holds"},
		"a dot":                         {packed(t, m, named("./state.bin")), "it holds"},
		"a long name":                   {packed(t, m, named(strings.Repeat("n", 5000))), "it holds"},
		"a name with a line":            {packed(t, m, named("a\nb")), "it holds"}, "no name": {packed(t, m, named("")), ""},
		"announced too large":   {packed(t, m, huge), "16"},
		"larger than the limit": {packed(t, regular(archiveState, make([]byte, 17<<20))), "at most"},
		"large meta": {packed(t, regular(archiveMeta, make([]byte, 2<<20)), s),
			"meta.json has a wrong type or size"},
		"meta is no JSON":        {packed(t, regular(archiveMeta, []byte("x")), s), "meta.json cannot be read"},
		"goes on behind its end": {trailing(), "data after its end"},
		"another size": {packed(t,
			regular(archiveMeta, bytes.Replace(text, []byte(`"Size":`), []byte(`"Size":1`), 1)), s,
			sums(regular(archiveMeta, bytes.Replace(text, []byte(`"Size":`), []byte(`"Size":1`), 1)), s)),
			"does not describe its state"},
	} {
		if name == "announced too large" {
			x.want = "at most"
		}
		refusedArchive(t, name, bytes.NewReader(x.archive), testLimits, x.want)
	}
	refusedArchive(t, "bomb", zeros(t, 10<<30), testLimits, "at most")
	refusedArchive(t, "bomb within the limit", zeros(t, 3<<30), ArchiveLimits{State: MaxArchiveState},
		"better than 1 to 100")
	refusedArchive(t, "too much to carry", bytes.NewReader(good), ArchiveLimits{State: 64 << 20, Carry: 1000},
		"carry at once")
	holes := regular(archiveState, append([]byte("1\n0\n0\n"), make([]byte, 506)...))
	holes.PAXRecords = map[string]string{"XNU.sparse.major": "1", "XNU.sparse.minor": "0", "XNU.sparse.name": archiveState,
		"XNU.sparse.realsize": fmt.Sprint(60 << 20)}
	refusedArchive(t, "a file with holes", bytes.NewReader(repacked(t, packed(t, m, holes), "XNU.sparse", "GNU.sparse")),
		testLimits, "a wrong type or size")
	full := ArchiveLimits{State: 16 << 20, Room: func() int64 { return 2*int64(len(data)) - 1 }}
	refusedArchive(t, "no room", bytes.NewReader(good), full, "much disk space")
	// Whoever waits no longer is not worked for.
	ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	nothing := io.MultiReader(bytes.NewReader(good[:len(good)/2]), &repeated{part: packed(t)})
	if a, err := ReadArchive(ctx, &repeated{part: emptyGzip(t)}, t.TempDir(), testLimits); err == nil ||
		!strings.Contains(err.Error(), "takes too long") {
		t.Error("nothing, again and again, until the deadline:", a, err)
	}
	if a, err := ReadArchive(ctx, nothing, t.TempDir(), testLimits); err == nil {
		t.Error("half of an archive and then others:", a, err)
	}
	if a, err := ReadArchive(ctx, zeros(t, 1<<40), t.TempDir(), ArchiveLimits{State: 1 << 50}); err == nil ||
		!strings.Contains(err.Error(), "takes too long") {
		t.Error("a bomb until the deadline:", a, err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("a bomb was unpacked for %v", took)
	}
}

// A state whose rows break a rule of the schema is refused when it is read, which verify, inspect and restore all do
// first. The sentence names the table and the rule with its column.
func TestBrokenRules(t *testing.T) {
	t.Parallel()
	state := queryBench(t)
	lax := []string{"PRAGMA ignore_check_constraints = 1", "PRAGMA foreign_keys = 0"}
	broken := func(t *testing.T, want, query string) string {
		t.Helper()
		path := changed(t, state, append(lax, query)...)
		var refusal *Refusal
		err := foreign.Check(bg, path, LatestSchema())
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
		return path
	}
	walked := 0
	for _, s := range sizes.All {
		switch s.Table { // a founded cluster has rows in these
		case "settings", "members", "api_tokens", "audit":
		default:
			continue
		}
		walked++
		length := fmt.Sprintf("(length(CAST(%s AS BLOB)) <= %d)", s.Column, s.Max)
		broken(t, "a row of table "+s.Table+" breaks CHECK "+length, fmt.Sprintf( // valid JSON, for columns of it
			`UPDATE %s SET %s = '"' || printf('%%.*c', %d, 'x') || '"'`, s.Table, s.Column, s.Max-1))
	}
	if walked < 15 {
		t.Errorf("only %d columns were tried", walked)
	}
	broken(t, "a row of table members breaks CHECK (pinned IN (0, 1))", "UPDATE members SET pinned = 2")
	broken(t, "a row of table join_token_uses refers to a missing row of table join_tokens",
		"INSERT INTO join_token_uses VALUES ('none', 1, NULL, 'x', 'y')")
	path := broken(t, "a row of table members breaks CHECK (json_valid(labels))", "UPDATE members SET labels = 'no'")
	refusedArchive(t, "labels", bytes.NewReader(archiveOf(t, path, func(*ArchiveMeta) {})), testLimits,
		"the archive's state is damaged: a row of table members breaks CHECK (json_valid(labels)); use another backup")
	const want = "the database is damaged: a row of table members breaks CHECK (json_valid(labels))"
	if _, err := CheckMirror(path); err == nil || err.Error() != want {
		t.Errorf("a member's own copy: %v, want %q", err, want)
	}
	if schema, err := CheckMirror(state); schema != LatestSchema() || err != nil {
		t.Error(schema, err)
	}
}
