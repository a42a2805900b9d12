package e2e

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/box"

	"muster/certs"
	"muster/client"
	"muster/internal/await"
)

// machine is a joiner that is not a muster: it has a key, speaks the documented join and unseals with nacl/box.
type machine struct {
	public  []int
	pub     [32]byte
	private [32]byte
	file    string // its key as an age identity
	port    int64  // for Raft: each machine has an address of its own
}

var machinePorts atomic.Int64

func newMachine(t *testing.T) *machine {
	t.Helper()
	id, err := certs.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{file: filepath.Join(t.TempDir(), "key"), port: 2 + machinePorts.Add(1)}
	if err := os.WriteFile(m.file, certs.EncodeIdentity(id, time.Now()), 0o600); err != nil {
		t.Fatal(err)
	}
	if m.private, err = certs.PrivateKey(id); err != nil {
		t.Fatal(err)
	}
	key, err := ecdh.X25519().NewPrivateKey(m.private[:])
	if err != nil {
		t.Fatal(err)
	}
	m.pub = [32]byte(key.PublicKey().Bytes())
	for _, b := range m.pub {
		m.public = append(m.public, int(b))
	}
	return m
}

// body is the machine's join with a token and with fields changed as in joinBody.
func (j *machine) body(t *testing.T, token string, change ...any) string {
	return joinBody(t, token, append([]any{"secrets_pubkey", j.public, "raft_port", j.port}, change...)...)
}

// admitted is the answer to a join that must succeed.
func admitted(t *testing.T, what string, a answer) client.JoinResponse {
	t.Helper()
	var r client.JoinResponse
	if err := json.Unmarshal([]byte(a.body), &r); a.err != nil || a.status != 200 || err != nil {
		t.Fatalf("%s: %v", what, a)
	}
	return r
}

// enter joins the machine, through one member.
func (j *machine) enter(t *testing.T, u *user, m *member, token string, change ...any) client.JoinResponse {
	t.Helper()
	r := admitted(t, "a join", u.do(m, "POST", "/api/v1/cluster/join", j.body(t, token, change...)))
	u.cluster.secret("a join secret", r.JoinSecret)
	if r.NodeJWT != "" {
		u.cluster.secret("a node identity", r.NodeJWT)
	}
	return r
}

// unseal opens wrapped_dek with nothing but nacl/box.
func (j *machine) unseal(t *testing.T, r client.JoinResponse) certs.DEK {
	t.Helper()
	if len(r.WrappedDEK) != 80 {
		t.Fatalf("wrapped_dek has %d numbers", len(r.WrappedDEK))
	}
	sealed := make([]byte, 80)
	for i, n := range r.WrappedDEK {
		sealed[i] = byte(n)
	}
	plain, ok := box.OpenAnonymous(nil, sealed, &j.pub, &j.private)
	if !ok || len(plain) != 32 {
		t.Fatal("wrapped_dek does not open")
	}
	return certs.DEK(plain)
}

// ageOpens is what `age -d` makes of a wrap in a mirror.
func ageOpens(t *testing.T, db, identity string, generation, node uint64) (certs.DEK, error) {
	t.Helper()
	wrap, err := hex.DecodeString(sqlite(t, db,
		fmt.Sprintf("SELECT hex(wrap) FROM dek_wraps WHERE generation = %d AND raft_node_id = %d", generation, node)))
	if err != nil || len(wrap) == 0 {
		return certs.DEK{}, fmt.Errorf("no wrap of generation %d for node %d: %v", generation, node, err)
	}
	cmd := exec.Command("age", "-d", "-i", identity)
	cmd.Stdin = bytes.NewReader(wrap)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	plain, err := cmd.Output()
	if err != nil || len(plain) != 32 {
		return certs.DEK{}, fmt.Errorf("age -d: %d bytes, %v: %s", len(plain), err, stderr.String())
	}
	return certs.DEK(plain), nil
}

func (u *user) generations(t *testing.T, m *member) []client.Generation {
	t.Helper()
	return get[[]client.Generation](t, u, m, "GET", "/api/v1/cluster/keys", "")
}

// newest is the active generation.
func (u *user) newest(t *testing.T, m *member) client.Generation {
	t.Helper()
	list := u.generations(t, m)
	g := list[len(list)-1]
	if g.State != "active" {
		t.Fatalf("the newest generation is %+v", g)
	}
	return g
}

// awaitRetired waits until only the newest generation is in use.
func (u *user) awaitRetired(t *testing.T, m *member) client.Generation {
	t.Helper()
	var newest client.Generation
	eventually(t, formed, "the old generations are retired", func() error {
		list, err := try[[]client.Generation](u, m, "GET", "/api/v1/cluster/keys", "")
		if err != nil {
			return err
		}
		newest = list[len(list)-1]
		for _, g := range list[:len(list)-1] {
			if g.State != "retired" || g.Holders != 0 {
				return fmt.Errorf("%+v", list)
			}
		}
		if newest.State != "active" || newest.Remaining != 0 {
			return fmt.Errorf("%+v", newest)
		}
		return nil
	})
	return newest
}

// rotate makes a new generation.
func (u *user) rotate(t *testing.T, m *member, body string, headers ...string) uint64 {
	t.Helper()
	return get[struct{ Generation uint64 }](t, u, m, "POST", "/api/v1/cluster/keys/rotate", body, headers...).Generation
}

// put stores a secret and remembers that its value must not be found in the open.
func (u *user) put(t *testing.T, m *member, name, value string) {
	t.Helper()
	u.cluster.secret("a secret's value", value)
	body, _ := json.Marshal(map[string]string{"value": value})
	if a := u.patiently(m, "PUT", "/api/v1/cluster/secrets/"+name, string(body)); a.status != 200 && a.status != 201 {
		t.Fatalf("secret %s: %v", name, a)
	}
}

func (u *user) value(m *member, name string) (string, error) {
	x, err := try[struct{ Value string }](u, m, "GET", "/api/v1/cluster/secrets/"+name, "")
	return x.Value, err
}

// lead makes a member the leader.
func (u *user) lead(t *testing.T, m *member) {
	t.Helper()
	if u.cluster.leader(t) == m {
		return
	}
	eventually(t, formed, fmt.Sprintf("node %d leads", m.n), func() error {
		if st, err := m.tryStatus(); err == nil && st.Cluster.IsLeader {
			return nil
		}
		for _, x := range u.members(t, m) {
			if x.NodeID == uint64(m.n) {
				return fmt.Errorf("%v", u.do(m, "PUT", "/v1/operator/raft/transfer-leadership?id="+x.ID, ""))
			}
		}
		return fmt.Errorf("node %d is no member", m.n)
	})
}

// awaitCopies waits until the mirrors of these members show what is committed now. A copy rests 40 times as long as it
// took, which with the race detector on a busy machine is many seconds: tests of keys wait as seldom as they can.
func awaitCopies(t *testing.T, c *cluster, members ...*member) {
	t.Helper()
	now := c.leader(t).status(t).Revision
	for _, m := range members {
		err := stretched(await.Slowly, formed, func() error {
			if _, err := os.Stat(m.db()); err != nil {
				return err
			}
			if got := sqlite(t, m.db(), fmt.Sprintf("SELECT revision >= %d FROM cluster", now)); got != "1" {
				return errNotYet
			}
			return nil
		})
		if err != nil {
			t.Fatalf("the mirror of node %d has not revision %d within %v: %v", m.n, now, formed, err)
		}
	}
}

// search looks for what must not be found: in the files, the logs and the dump of each member.
func search(t *testing.T, c *cluster, needles map[string]string) {
	t.Helper()
	var lines strings.Builder
	raw := map[string]string{} // what has line ends goes another way than through grep
	for text, what := range needles {
		if strings.ContainsAny(text, "\n\x00") {
			raw[text] = what
		} else {
			fmt.Fprintln(&lines, text)
		}
	}
	patterns := filepath.Join(t.TempDir(), "patterns")
	if err := os.WriteFile(patterns, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	look := func(where, file string) {
		cmd := exec.Command("grep", "-a", "-o", "-F", "-f", patterns, file)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, _ := cmd.Output() // fails when nothing is found, or when the file is gone
		for line := range strings.Lines(string(out)) {
			line = strings.TrimSuffix(line, "\n")
			t.Errorf("%s (%.10q…) is in %s", needles[line], line, where)
		}
		if len(raw) > 0 {
			data, _ := os.ReadFile(file)
			for text, what := range raw {
				if bytes.Contains(data, []byte(text)) {
					t.Errorf("%s (%.10q…) is in %s", what, text, where)
				}
			}
		}
	}
	dump := filepath.Join(t.TempDir(), "dump")
	for _, m := range c.members {
		keep := map[string]bool{"node.key": true, "tls/http.key": true, "tls/transport.key": true, "admin.token": true}
		_ = filepath.WalkDir(m.dir, func(path string, d os.DirEntry, err error) error {
			name, _ := filepath.Rel(m.dir, path)
			if err == nil && !d.IsDir() && !keep[name] { // a file may go while we look
				look(fmt.Sprintf("%s of node %d", name, m.n), path)
			}
			return nil
		})
		look(fmt.Sprintf("the log of node %d", m.n), m.log)
		text := sqlite(t, m.db(), ".dump")
		if err := os.WriteFile(dump, []byte(text+"\n"+strings.ToLower(text)), 0o600); err != nil {
			t.Fatal(err)
		}
		look(fmt.Sprintf("the dump of node %d", m.n), dump)
	}
	if out, err := exec.Command("grep", "-a", "-c", "-F", "-f", patterns,
		c.members[0].file("admin.token")).Output(); err != nil || string(out) != "1\n" {
		t.Errorf("the search does not find what is there: %s %v", out, err)
	}
}

// joinFields is a join that would be accepted.
func joinFields(t *testing.T, token string) map[string]any {
	pub, _ := newKey(t)
	return map[string]any{"token": token, "advertise_addr": "127.0.0.1", "overlay_port": 51420, "raft_port": 1,
		"wg_public_key": "",
		"mode":          "replicate", "secrets_pubkey": pub}
}

// joinBody is the same as JSON, with these fields changed: name, value, name, value…; a nil value takes a field out.
func joinBody(t *testing.T, token string, change ...any) string {
	f := joinFields(t, token)
	for i := 0; i < len(change); i += 2 {
		if name := change[i].(string); change[i+1] == nil {
			delete(f, name)
		} else {
			f[name] = change[i+1]
		}
	}
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// refused tries a join that must not succeed.
func (j *machine) refused(t *testing.T, u *user, m *member, token string, status int, message string) {
	t.Helper()
	a := u.do(m, "POST", "/api/v1/cluster/join", j.body(t, token))
	var e struct{ Message string }
	_ = json.Unmarshal([]byte(a.body), &e)
	beginning, some := strings.CutSuffix(message, "…")
	if a.err != nil || a.status != status || e.Message != message && !(some && strings.HasPrefix(e.Message, beginning)) {
		t.Errorf("got %v, want %d %s", a, status, message)
	}
}
