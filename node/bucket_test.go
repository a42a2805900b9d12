package node_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/client"
	"muster/cluster/backup/buckettest"
)

// Backups go to a bucket of a real S3 server: with credentials that are a sealed secret, through every member, kept by
// number, and there when the member that wrote them is none any more.
func TestBackupsInBucket(t *testing.T) {
	s := buckettest.Start(t, t.TempDir(), true)
	g := startGroup(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	g.set(t, map[string]any{"backup.directory": "s3://vault/muster", "backup.s3_endpoint": s.URL, "backup.s3_ca": s.CA,
		"backup.s3_credentials": "vault.key", "backup.keep": 2})
	credentialsOfBucket(ctx, t, g, s)
	var last client.Backup
	for range 3 {
		leader := g.leader(t)
		if last = g.run(t); last.State != "good" || !last.Present || last.NodeID == leader && leader == g.leader(t) {
			t.Fatalf("%+v", last)
		}
	}
	dir := filepath.Join(s.Dir, "vault", "muster")
	await(t, "two are left", func(ctx context.Context) bool {
		files, _ := filepath.Glob(filepath.Join(dir, "muster-*"))
		list, err := g.c.Backups(ctx)
		good := 0
		for _, b := range list {
			if b.State == "good" {
				good++
			}
		}
		return err == nil && good == 2 && len(files) == 2
	})
	text, err := os.ReadFile(filepath.Join(dir, last.File))
	if err != nil {
		t.Fatal(err)
	}
	all := func(when string) {
		t.Helper()
		for i, d := range g.dirs {
			if g.nodes[i] == nil {
				continue
			}
			var got bytes.Buffer
			c := clientAt(t, g.dirs[0], d)
			if _, err := c.SaveBackup(ctx, &got, last.ID, client.SnapshotOptions{}); err != nil ||
				!bytes.Equal(got.Bytes(), text) {
				t.Errorf("%s, through member %d: %d bytes, %v", when, i+1, got.Len(), err)
			}
			if check, err := c.VerifyBackup(ctx, last.ID); err != nil || !check.OK || !check.Restored {
				t.Errorf("%s, through member %d: %+v, %v", when, i+1, check, err)
			}
		}
	}
	all("at first")
	bucketAway(ctx, t, g, s, last.ID)
	await(t, "its writer is removed", func(ctx context.Context) bool {
		if _, err := g.c.RemoveMember(ctx, last.NodeID, true); err == nil {
			return true
		}
		// On a busy machine it may have become the leader.
		_ = g.c.TransferLeadership(ctx, fmt.Sprint(last.NodeID%3+1))
		return false
	})
	gone := int(last.NodeID) - 1
	g.c = clientAt(t, g.dirs[0], g.dirs[(gone+1)%3])
	if err := g.nodes[gone].Close(); err != nil {
		t.Log(err)
	}
	g.nodes[gone] = nil
	if b, err := g.c.Backup(ctx, last.ID); err != nil || !b.Present {
		t.Errorf("when its writer was removed: %+v, %v", b, err)
	}
	all("when its writer was removed")
	for name, bad := range badBackupSettings {

		for _, value := range bad {
			if _, err := g.c.SetSettings(ctx, map[string]any{name: value}); err == nil ||
				!strings.Contains(err.Error(), name+" must be ") {
				t.Errorf("%s = %v: %v", name, value, err)
			}
		}
	}
	for _, d := range g.dirs {
		if err := nowhere(d, s.SecretKey); err != nil {
			t.Error(err)
		}
	}
}

// credentialsOfBucket has backups fail for want of credentials, and stores good ones.
func credentialsOfBucket(ctx context.Context, t *testing.T, g *group, s *buckettest.Server) {
	t.Helper()
	if b := g.run(t); b.State != "failed" ||
		!strings.Contains(b.Reason, "secret that backup.s3_credentials names does not exist") {
		t.Errorf("without credentials: %+v", b)
	}
	for _, secret := range []string{"no colon", ":empty", s.AccessKey + ":wrong"} {
		if _, err := g.c.PutSecret(ctx, "vault.key", []byte(secret)); err != nil {
			t.Fatal(err)
		}
		if b := g.run(t); b.State != "failed" || strings.Contains(b.Reason, "wrong") {
			t.Errorf("with credentials that are none: %+v", b)
		}
	}
	if _, err := g.c.PutSecret(ctx, "vault.key", []byte(s.AccessKey+":"+s.SecretKey+"\n")); err != nil {
		t.Fatal(err)
	}
}

// bucketAway stops the server for a while.
func bucketAway(ctx context.Context, t *testing.T, g *group, s *buckettest.Server, id string) {
	t.Helper()
	s.Stop()
	if check, err := g.c.VerifyBackup(ctx, id); err != nil || check.OK || check.Reason == "" {
		t.Errorf("while the server is gone: %+v, %v", check, err)
	}
	if b := g.run(t); b.State != "failed" || !strings.Contains(b.Reason, "does not answer") {
		t.Errorf("while the server is gone: %+v", b)
	}
	s.Run()
	if b, err := g.c.Backup(ctx, id); err != nil || b.State != "good" {
		t.Errorf("a file that could not be read for a while: %+v, %v", b, err)
	}
}

// badBackupSettings lists values that each setting refuses.
var badBackupSettings = map[string][]any{
	"backup.directory": {"s3://", "s3://x", "s3:///a", "s3://Vault", "s3://a_b", "s3://vault/", "s3://vault/a/../b",
		"s3://vault//a",
		"s3://va..ult", "s3://" + strings.Repeat("v", 64), "s3://vault/" + strings.Repeat("x", 1024), "s3://vault/a\nb"},
	"backup.s3_endpoint": {"", "none", "s3.example.org", "http://s3.example.org", "https://s3.example.org/path",
		"https://u:p@s3.example.org", "https://s3.example.org?x", 7},
	"backup.s3_region":     {"", "eu west", strings.Repeat("x", 65), 1},
	"backup.s3_path_style": {"", "yes", true},
	"backup.s3_ca":         {"", "relative", "/a/../b"},
	"backup.s3_networks":   {"", "10.0.0.0", "none"},
}

// nowhere returns an error when a file below dir has a secret in clear, be it the database or the audit in it.
func nowhere(dir, secret string) error {
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(secret)) {
			err = fmt.Errorf("%s has the secret", path)
		}
		return err
	})
}
