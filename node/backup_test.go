package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"muster/client"
	"muster/node"
	"muster/store"
)

// group is some members in this process.
type group struct {
	dirs  []string
	nodes []*node.Node
	c     *client.Client // of the first
}

// startGroup starts n members that all are Raft servers.
func startGroup(t *testing.T, n int) *group {
	t.Helper()
	dir := t.TempDir()
	g := &group{}
	var token string
	for i := range n {
		cfg := config(filepath.Join(dir, fmt.Sprint(i+1)))
		cfg.Name, cfg.Join = fmt.Sprintf("node-%d", i+1), token
		g.dirs = append(g.dirs, cfg.Data)
		g.nodes = append(g.nodes, start(t, cfg))
		if i > 0 {
			continue
		}
		g.c = dial(t, cfg.Data)
		ctx, cancel := context.WithTimeout(t.Context(), whole)
		defer cancel()
		made, err := g.c.CreateJoinToken(ctx, client.JoinTokenRequest{TTL: time.Hour, MaxUses: 9, Mode: store.ModeFull})
		if err != nil {
			t.Fatal(err)
		}
		token = made.Token
	}
	await(t, "all are Raft servers", func(ctx context.Context) bool {
		members, err := g.c.Members(ctx)
		servers := 0
		for _, m := range members {
			if m.Role == "voter" || m.Role == "stand-by" {
				servers++
			}
		}
		return err == nil && servers == n
	})
	return g
}

func (g *group) set(t *testing.T, values map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	if _, err := g.c.SetSettings(ctx, values); err != nil {
		t.Fatal(err)
	}
}

// run has a backup made and returns its record.
func (g *group) run(t *testing.T) client.Backup {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	b, err := g.c.RunBackup(ctx)
	if err == nil {
		b, err = g.c.AwaitBackup(ctx, b.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (g *group) leader(t *testing.T) (id uint64) {
	t.Helper()
	await(t, "there is a leader", func(ctx context.Context) bool {
		s, err := g.c.Status(ctx)
		if err == nil {
			id = s.Cluster.LeaderNodeID
		}
		return id != 0
	})
	return id
}

// An interval and a directory are enough: a member that does not lead saves the state, for the recipients alone, and
// everybody can list, verify and fetch it.
func TestBackupsBySchedule(t *testing.T) {
	g := startGroup(t, 3)
	vault := t.TempDir()
	if err := os.Chmod(vault, 0o700); err != nil {
		t.Fatal(err)
	}
	operator, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	if _, err := g.c.PutSecret(ctx, "db.password", []byte("correct horse")); err != nil {
		t.Fatal(err)
	}
	leader := g.leader(t)
	g.set(t, map[string]any{"backup.interval": "1h", "backup.directory": vault,
		"backup.recipients": operator.Recipient().String()})
	var made client.Backup
	await(t, "a backup is good", func(ctx context.Context) bool {
		list, err := g.c.Backups(ctx)
		if err != nil || len(list) != 1 || list[0].State != "good" {
			return false
		}
		made = list[0]
		return true
	})
	if !made.Present || !made.Encrypted || made.Cause != "schedule" || made.NodeID == leader && leader == g.leader(t) {
		t.Errorf("%+v", made)
	}
	path := filepath.Join(vault, made.File)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || hex.EncodeToString(sum[:]) != made.SHA256 ||
		info.Size() != made.Bytes {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if bytes.Contains(text, []byte("node-1")) || !bytes.HasPrefix(text, []byte("age-encryption.org/v1")) {
		t.Error("the file is not encrypted")
	}
	plain, err := age.Decrypt(bytes.NewReader(text), operator)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := store.ReadArchive(ctx, plain, t.TempDir(), store.ArchiveLimits{State: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if err := archive.Rehearse(ctx, operator); err != nil {
		t.Error("the identity does not open what is sealed:", err)
	}
	stranger, _ := age.GenerateX25519Identity()
	if err := archive.Rehearse(ctx, stranger); err == nil {
		t.Error("another identity opens it, too")
	}
	for i, dir := range g.dirs { // through whichever member
		var got bytes.Buffer
		c := clientAt(t, g.dirs[0], dir)
		if _, err := c.SaveBackup(ctx, &got, made.ID, client.SnapshotOptions{}); err != nil ||
			!bytes.Equal(got.Bytes(), text) {
			t.Errorf("through member %d: %d bytes, %v", i+1, got.Len(), err)
		}
		if check, err := c.VerifyBackup(ctx, made.ID); err != nil || !check.OK || check.Restored {
			t.Errorf("through member %d: %+v, %v", i+1, check, err)
		}
	}
	s, err := g.c.BackupStatus(ctx)
	if err != nil || len(s.Problems) != 0 || s.NextAt == nil || s.LastGood == nil ||
		s.NextAt.Sub(made.StartedAt) != time.Hour {
		t.Errorf("%+v, %v", s, err)
	}
}

// clientAt asks the member in dir with the credentials of the member in admin.
func clientAt(t *testing.T, admin, dir string) *client.Client {
	t.Helper()
	cfg, err := client.FromData(admin)
	if err != nil {
		t.Fatal(err)
	}
	api, _ := ports(t, dir)
	cfg.Addrs = []string{"https://" + api}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// What is kept is bounded by a number; files go with their records. A file that somebody has changed counts as failed
// from when that is found.
func TestBackupsAreKept(t *testing.T) {
	g := startGroup(t, 1)
	vault := t.TempDir()
	if err := os.Chmod(vault, 0o700); err != nil {
		t.Fatal(err)
	}
	g.set(t, map[string]any{"backup.directory": vault, "backup.keep": 2})
	var last client.Backup
	for range 4 {
		last = g.run(t)
		if last.State != "good" || last.NodeID != 1 || last.Encrypted {
			t.Fatalf("%+v", last)
		}
	}
	await(t, "two are left", func(ctx context.Context) bool {
		list, err := g.c.Backups(ctx)
		files, _ := os.ReadDir(vault)
		return err == nil && len(list) == 2 && len(files) == 2 && list[0].ID == last.ID
	})
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	if check, err := g.c.VerifyBackup(ctx, last.ID); err != nil || !check.OK || !check.Restored {
		t.Errorf("%+v, %v", check, err)
	}
	path := filepath.Join(vault, last.File)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if check, err := g.c.VerifyBackup(ctx, last.ID); err != nil || check.OK || check.Reason == "" {
		t.Errorf("a changed file: %+v, %v", check, err)
	}
	b, err := g.c.Backup(ctx, last.ID)
	if err != nil || b.State != "failed" || b.Reason == "" {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := g.c.SaveBackup(ctx, &bytes.Buffer{}, last.ID, client.SnapshotOptions{}); err == nil ||
		!strings.Contains(err.Error(), "it has no file") {
		t.Errorf("a file that is not what it was: %v", err)
	}
}

// What stands in the way is said.
func TestBackupsThatFail(t *testing.T) {
	g := startGroup(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	if _, err := g.c.RunBackup(ctx); err == nil || !strings.Contains(err.Error(), "set backup.directory") {
		t.Errorf("without a directory: %v", err)
	}
	dir := t.TempDir()
	open, link, file := filepath.Join(dir, "open"), filepath.Join(dir, "link"), filepath.Join(dir, "file")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(open, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for target, text := range map[string]string{
		filepath.Join(dir, "gone"): "there is no such directory",
		open:                       "others may write to it",
		link:                       "it is a symbolic link",
		file:                       "it is not a directory",
		"/proc/self/fd":            "",
	} {
		g.set(t, map[string]any{"backup.directory": target})
		if b := g.run(t); b.State != "failed" || !strings.Contains(b.Reason, text) {
			t.Errorf("%s: %s, %q", target, b.State, b.Reason)
		}
	}
	for name, bad := range map[string][]any{
		"backup.directory":  {"", "relative", "/a/../b", "/", "/a\nb", "/" + strings.Repeat("x", 1024), 1},
		"backup.interval":   {"1s", "-1h", "800h", "soon", 5},
		"backup.keep":       {0, 1001, "2", 1.5},
		"backup.keep_for":   {"1m", "-1h", "1000000h"},
		"backup.recipients": {"", "age1nothing", "AGE-SECRET-KEY-1", "none,none", ","},
	} {
		for _, value := range bad {
			if _, err := g.c.SetSettings(ctx, map[string]any{name: value}); err == nil ||
				!strings.Contains(err.Error(), name+" must be ") {
				t.Errorf("%s = %v: %v", name, value, err)
			}
		}
	}
}

// A backup that the leader has only just ordered is carried on by the next one, when that leader stops; and what a
// member held that is removed does not count any longer.
func TestBackupsOutliveMembers(t *testing.T) {
	g := startGroup(t, 3)
	vault := t.TempDir()
	if err := os.Chmod(vault, 0o700); err != nil {
		t.Fatal(err)
	}
	g.set(t, map[string]any{"backup.directory": vault})
	leader := int(g.leader(t))
	g.c = clientAt(t, g.dirs[0], g.dirs[leader%3]) // one that goes on
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	asked, err := g.c.RunBackup(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.nodes[leader-1].Close(); err != nil {
		t.Fatal(err)
	}
	b, err := g.c.AwaitBackup(ctx, asked.ID)
	if err != nil || b.State != "good" || b.NodeID == uint64(leader) {
		t.Fatalf("%+v, %v", b, err)
	}
	if files, err := os.ReadDir(vault); err != nil || len(files) != 1 || files[0].Name() != b.File {
		t.Errorf("%v, %v", files, err)
	}
	g.nodes[leader-1] = start(t, again(t, g.dirs[leader-1]))
	holder, other := b.NodeID, uint64(0)
	for id := uint64(1); id <= 3; id++ {
		if id != holder {
			other = id
		}
	}
	g.c = clientAt(t, g.dirs[0], g.dirs[other-1])
	await(t, "the holder does not lead", func(ctx context.Context) bool {
		if g.leader(t) != holder {
			return true
		}
		_ = g.c.TransferLeadership(ctx, fmt.Sprint(other))
		return false
	})
	await(t, "the holder is removed", func(ctx context.Context) bool {
		_, err := g.c.RemoveMember(ctx, holder, true)
		return err == nil
	})
	if _, err := g.c.SaveBackup(ctx, &bytes.Buffer{}, b.ID, client.SnapshotOptions{}); err == nil ||
		!strings.Contains(err.Error(), "is no longer a member") {
		t.Errorf("from a removed member: %v", err)
	}
	g.set(t, map[string]any{"backup.interval": "1h"})
	await(t, "another one is made", func(ctx context.Context) bool {
		s, err := g.c.BackupStatus(ctx)
		return err == nil && s.LastGood != nil && s.LastGood.ID != b.ID && s.LastGood.Present
	})
}

// again is the configuration of a member that is started once more, where it was.
func again(t *testing.T, dir string) node.Config {
	t.Helper()
	cfg := config(dir)
	cfg.API, cfg.Raft = ports(t, dir)
	return cfg
}
