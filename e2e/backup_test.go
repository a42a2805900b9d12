package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files unpacks an archive.
func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

// pack makes an archive; sums are made for it unless it has some.
func pack(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	if files["SHA256SUMS"] == nil {
		var sums strings.Builder
		for name, data := range files {
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), name)
		}
		files["SHA256SUMS"] = []byte(sums.String())
	}
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	w.Close()
	zip.Close()
	return out.Bytes()
}

const snapshotPath = "/v1/operator/snapshot"

// TestBackup saves and restores a running cluster, and then starts over from a backup alone.
func TestBackup(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	leader := c.leader(t)
	follower := c.others(leader)[0]

	u.put(t, leader, "recipe", "salt and water")
	c.secret("a stored secret", "salt and water")
	reader := u.apiToken(t, leader, "reader", "cluster:read")
	c.secret("an API token", reader.Token)
	kept := u.create(t, leader, `{"ttlSeconds":3000,"maxUses":3}`)
	u.do(leader, "PUT", "/api/v1/cluster/autopilot/config", `{"stabilization":"4s"}`)

	saved := u.do(follower, "GET", snapshotPath, "")
	t.Run("archive", func(t *testing.T) { testArchive(t, c, saved) })
	dir := t.TempDir()
	file := filepath.Join(dir, "a.tgz")
	cmd := command{env: c.env(c.token)}
	cmd.ok(t, "backup", "save", file, "--addr", "https://"+follower.api)
	t.Run("inspect and overwrite", func(t *testing.T) {
		out := cmd.ok(t, "backup", "inspect", file)
		if !strings.Contains(out.stdout, c.id) || strings.Count(out.stdout, "voter") != 3 {
			t.Errorf("inspect: %s", out.stdout)
		}
		if out := cmd.run(t, "backup", "save", file); out.code != 1 || !strings.Contains(out.stderr, "--yes") {
			t.Errorf("overwriting without a word: %+v", out)
		}
		cmd.ok(t, "backup", "save", file, "--yes", "--stale")
		if out := cmd.ok(t, "backup", "save", "-"); len(unpack(t, []byte(out.stdout))) != 3 {
			t.Error("on stdout there is no archive")
		}
		if out := cmd.run(t, "backup", "restore", file); out.code != 1 || !strings.Contains(out.stderr, "--yes") {
			t.Errorf("restoring without a word: %+v", out)
		}
	})
	eventually(t, formed, "a stale backup that has everything", func() error {
		cmd.ok(t, "backup", "save", file, "--yes", "--stale")
		meta := jsonOf[struct{ Index uint64 }](t, cmd.ok(t, "backup", "inspect", file, "-o", "json"))
		if now := c.leader(t).status(t).Revision; meta.Index != now {
			return fmt.Errorf("revision %d of %d", meta.Index, now)
		}
		return nil
	})
	t.Run("refused", func(t *testing.T) { testArchivesRefused(t, c, []byte(saved.body)) })

	// Everything changes, a key rotation included.
	u.put(t, leader, "recipe", "something else")
	u.put(t, leader, "later", "new")
	u.do(leader, "DELETE", "/api/v1/api-tokens/"+reader.ID, "")
	later := u.apiToken(t, leader, "later", "management")
	c.secret("an API token", later.Token)
	u.do(leader, "DELETE", "/api/v1/cluster/join-tokens/"+kept.ID, "")
	u.do(leader, "PUT", "/api/v1/cluster/autopilot/config", `{"stabilization":"9s"}`)
	u.rotate(t, leader, `{}`)
	u.awaitRetired(t, leader)
	before := leader.status(t).Revision
	members := u.members(t, leader)

	t.Run("restore", func(t *testing.T) {
		by := command{env: c.env(later.Token)} // who asks keeps the token, though the backup does not know it
		out := by.ok(t, "backup", "restore", file, "--yes", "--addr", "https://"+follower.api)
		if !strings.Contains(out.stderr, "secrets") {
			t.Errorf("it says %s", out.stderr)
		}
		u := c.as(t, later.Token)
		for _, m := range c.members {
			eventually(t, formed, "the old values are back", func() error {
				if v, err := u.value(m, "recipe"); err != nil || v != "salt and water" {
					return fmt.Errorf("recipe is %q, %v", v, err)
				}
				if _, err := u.value(m, "later"); err == nil {
					return fmt.Errorf("what was stored later is still there")
				}
				return nil
			})
			if a := c.as(t, reader.Token).do(m, "GET", "/api/v1/cluster/members", ""); a.status != 401 {
				t.Errorf("a token that was revoked after the backup: %v", a)
			}
			if a := u.do(m, "GET", "/api/v1/cluster/autopilot/config", ""); !strings.Contains(a.body, `"stabilization":"4s"`) {
				t.Errorf("the setting is %v", a)
			}
		}
		if x := u.joinToken(t, leader, kept.ID); x.State != "revoked" {
			t.Errorf("a join token that was revoked after the backup is %s", x.State)
		}
		if now := c.leader(t).status(t).Revision; now <= before {
			t.Errorf("revision %d after %d", now, before)
		}
		if now := u.members(t, leader); len(now) != len(members) {
			t.Errorf("members: %+v, before %+v", now, members)
		}
		if out := by.ok(t, "backup", "restore", file, "--yes"); !strings.Contains(out.stderr, "nothing had changed") &&
			!strings.Contains(out.stderr, "secrets") {
			t.Errorf("a second time: %s", out.stderr)
		}
		// The cluster works: a new member joins, a token is made, and the audit knows.
		c.join(c.add())
		c.members[3].awaitReady(t)
		c.members[0].awaitSQL(t, "SELECT count(*) FROM audit WHERE action = 'cluster.restore'", "2")
		// A leader that was no member when the backup was made cannot open it; whoever has a key of then can have it opened.
		if a := u.patiently(leader, "POST", memberURL(4, "/promote"), ""); a.status != 200 {
			t.Fatalf("promote: %v", a)
		}
		u.lead(t, c.members[3])
		u.put(t, leader, "recipe", "something else again")
		if out := by.run(t, "backup", "restore", file, "--yes"); out.code != 1 ||
			!strings.Contains(out.stderr, "node 4 cannot open the values of this archive") {
			t.Errorf("on a leader that joined later: %+v", out)
		}
		if v, err := u.value(leader, "recipe"); err != nil || v != "something else again" {
			t.Errorf("a restore that was refused has changed the recipe to %q, %v", v, err)
		}
		by.ok(t, "backup", "restore", file, "--yes", "--identity", c.members[0].file("node.key"))
		if v, err := u.value(leader, "recipe"); err != nil || v != "salt and water" {
			t.Errorf("after the restore with an identity, the recipe is %q, %v", v, err)
		}
	})

	t.Run("leader killed in the middle", func(t *testing.T) { testRestoreKilled(t, c, c.as(t, later.Token), file) })
	t.Run("begin anew", func(t *testing.T) { testRefound(t, c, cmd, later, reader) })
}

func testArchive(t *testing.T, c *cluster, a answer) {
	if a.status != 200 || a.header.Get("Content-Type") != "application/x-gzip" {
		t.Fatalf("%d %v", a.status, a.header)
	}
	sum := sha256.Sum256([]byte(a.body))
	if want := "sha-256=" + base64.StdEncoding.EncodeToString(sum[:]); a.header.Get("Digest") != want {
		t.Errorf("Digest is %q, the body has %q", a.header.Get("Digest"), want)
	}
	files := unpack(t, []byte(a.body))
	for _, name := range []string{"meta.json", "state.bin"} {
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(files[name]), name); !strings.Contains(string(files["SHA256SUMS"]),
			line) {
			t.Errorf("SHA256SUMS does not say %q: %s", line, files["SHA256SUMS"])
		}
	}
	db := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(db, files["state.bin"], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := sqlite(t, db, "PRAGMA integrity_check; SELECT count(*) FROM v_members"); got != "ok\n3" {
		t.Errorf("the sqlite3 shell says %q", got)
	}
	for text, what := range c.secrets {
		if bytes.Contains(files["state.bin"], []byte(text)) {
			t.Errorf("%s is in the archive", what)
		}
	}
	c.nobody(t).do(c.members[0], "GET", snapshotPath, "").expect(t, "without a token", 403, "Permission denied")
	c.nobody(t).do(c.members[1], "PUT", snapshotPath, "x").expect(t, "without a token", 403, "Permission denied")
}

// testArchivesRefused: archives that are not whole, not ours or not of this cluster change nothing.
func testArchivesRefused(t *testing.T, c *cluster, good []byte) {
	change := func(name string, f func([]byte) []byte) []byte {
		files := unpack(t, good)
		delete(files, "SHA256SUMS")
		files[name] = f(bytes.Clone(files[name]))
		return pack(t, files)
	}
	flip := func(data []byte) []byte { data[len(data)/2] ^= 0xff; return data }
	foreign := unpack(t, good)
	delete(foreign, "SHA256SUMS")
	for _, name := range []string{"meta.json", "state.bin"} {
		foreign[name] = bytes.ReplaceAll(foreign[name], []byte(c.id), []byte("11111111-2222-4333-8444-555555555555"))
	}
	unsummed := unpack(t, good)
	unsummed["state.bin"] = flip(bytes.Clone(unsummed["state.bin"]))
	unchanged(t, c, func(u *user) {
		for _, x := range []struct {
			what string
			body []byte
			want string
		}{
			{"nothing", nil, "failed to decompress snapshot: unexpected EOF"},
			{"garbage", []byte("garbage"), "failed to decompress snapshot: unexpected EOF"},
			{"long garbage", bytes.Repeat([]byte("garbage"), 1000), "failed to decompress snapshot: invalid header"},
			{"half of one", good[:len(good)/2], "failed to decompress snapshot: unexpected EOF"},
			{"one without its end", good[:len(good)-4], "failed to decompress snapshot: unexpected EOF"},
			{"wrong sum", pack(t, unsummed), "the checksum of state.bin does not match"},
			{"damaged database", change("state.bin", func(d []byte) []byte {
				for i := 4096; i < len(d); i += 97 {
					d[i] ^= 0x55
				}
				return d
			}), "the archive's state is"},
			{"no database", change("state.bin", func([]byte) []byte { return []byte("hello") }),
				"is not a database of muster's"},
			{"another tar", pack(t, map[string][]byte{"etc/passwd": []byte("x")}), "is not a snapshot of muster"},
			{"no state", pack(t, map[string][]byte{"meta.json": []byte(`{"Version":1}`)}), "it has no state.bin"},
			{"another format", change("meta.json", func(d []byte) []byte {
				return bytes.Replace(d, []byte(`"Version": 1`), []byte(`"Version": 9`), 1)
			}), "has format 9"},
			{"another cluster", pack(t, foreign), "the archive is of cluster 11111111-2222-4333-8444-555555555555"},
		} {
			for _, m := range c.members[:2] {
				a := u.do(m, "PUT", snapshotPath, string(x.body))
				if a.status != 500 || !strings.HasPrefix(a.body, "failed to restore from snapshot: ") ||
					!strings.Contains(a.body, x.want) {
					t.Errorf("%s on node %d: %v, want %s", x.what, m.n, a, x.want)
				}
			}
		}
	})
	for _, m := range c.members {
		if left, _ := filepath.Glob(m.file(".snapshot-*")); len(left) > 0 {
			t.Errorf("left on node %d: %v", m.n, left)
		}
	}
}
