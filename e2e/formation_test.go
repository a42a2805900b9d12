package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"muster/certs"
	"muster/store"
)

// TestCluster: what a cluster of three has put on its disks, and says through each member.
func TestCluster(t *testing.T) {
	t.Parallel()
	onThree(t, part{"mirrors", testMirrors}, part{"wraps", testWraps}, part{"file modes", testFileModes},
		part{"same on every member", testSameEverywhere})
}

// part is a test of something on a cluster that it leaves whole.
type part struct {
	name string
	test func(*testing.T, *cluster)
}

// onThree runs tests one after the other on a cluster of three, and looks for secrets when all is done.
func onThree(t *testing.T, parts ...part) {
	t.Helper()
	c := newCluster(t, 3)
	for _, x := range append(parts, part{"no secret in the open", testNoSecretInTheOpen}) {
		t.Run(x.name, func(t *testing.T) { x.test(t, c) })
	}
}

// sqlite asks the sqlite3 shell. Without -readonly it would make an empty file where there is no mirror yet.
func sqlite(t *testing.T, file, query string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", "-readonly", file, query).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %s %q: %v: %s", file, query, err, out)
	}
	return strings.TrimSpace(string(out))
}

// testMirrors: the sqlite3 shell shows the same members on every machine, and leaves nothing beside the file.
func testMirrors(t *testing.T, c *cluster) {
	leader := c.leader(t)
	var first string
	for _, m := range c.members {
		eventually(t, formed, fmt.Sprintf("node %d has a mirror", m.n), func() error {
			_, err := os.Stat(m.db())
			return err
		})
		eventually(t, formed, fmt.Sprintf("the mirror of node %d shows three voters", m.n), func() error {
			got := sqlite(t, m.db(), "SELECT node, name, role, leader, raft_address, api_address, mode, drain FROM v_members")
			var want []string
			for _, x := range c.members {
				who := ""
				if x == leader {
					who = "leader"
				}
				want = append(want, fmt.Sprintf("%d|node-%d|voter|%s|%s|%s|full|active", x.n, x.n, who, x.raft, x.api))
			}
			if got != strings.Join(want, "\n") {
				return fmt.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
			return nil
		})
		if out, err := exec.Command("sqlite3", m.db(), "SELECT count(*) FROM v_members").CombinedOutput(); err != nil ||
			string(out) != "3\n" {
			t.Errorf("sqlite3 without -readonly: %v: %s", err, out)
		}
		all := sqlite(t, m.db(), "SELECT * FROM v_members")
		if first == "" {
			first = all
		}
		if all != first {
			t.Errorf("the mirror of node %d shows\n%s\nand that of node 1\n%s", m.n, all, first)
		}
		for _, q := range []struct{ query, want string }{
			{"SELECT group_concat(name) FROM (SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name)",
				"v_audit,v_authorities,v_backups,v_certificates,v_enrollments,v_keys,v_members,v_peerings,v_tokens,v_workloads"},
			{"SELECT generation, state, holders, held_by FROM v_keys", "1|active|3|1 2 3"},
			{"SELECT count(*) FROM v_peerings", "0"},
			{"SELECT kind, bound_to, used, state FROM v_tokens WHERE kind = 'join' ORDER BY bound_to",
				"join|node 2|1 of 1|used\njoin|node 3|1 of 1|used"},
			{"PRAGMA integrity_check", "ok"},
			{"PRAGMA foreign_key_check", ""},
			{"SELECT id FROM cluster", c.id},
		} {
			if got := sqlite(t, m.db(), q.query); got != q.want {
				t.Errorf("node %d: %s: %q, want %q", m.n, q.query, got, q.want)
			}
		}
		if beside, _ := filepath.Glob(m.db() + "-*"); len(beside) > 0 {
			t.Errorf("the sqlite3 shell left %v", beside)
		}
	}
}

// dek opens a member's wrap with the age program, as an operator would by hand.
func (m *member) dek(t *testing.T) certs.DEK {
	t.Helper()
	wrap, err := hex.DecodeString(sqlite(t, m.db(),
		fmt.Sprintf("SELECT hex(wrap) FROM dek_wraps WHERE generation = 1 AND raft_node_id = %d", m.n)))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("age", "-d", "-i", m.file("node.key"))
	cmd.Stdin = bytes.NewReader(wrap)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	plain, err := cmd.Output()
	if err != nil || len(plain) != 32 {
		t.Fatalf("age -d of the wrap of node %d: %d bytes, %v: %s", m.n, len(plain), err, stderr.String())
	}
	return certs.DEK(plain)
}

// testWraps: every member's own wrap opens with its own identity, to the same key, and with nobody else's.
func testWraps(t *testing.T, c *cluster) {
	first := c.members[0].dek(t)
	for _, m := range c.members[1:] {
		if m.dek(t) != first {
			t.Errorf("node %d has another key than node 1", m.n)
		}
	}
	stranger := *c.members[1]
	stranger.n = 1 // the wrap of node 1 with the identity of node 2
	wrap, _ := hex.DecodeString(sqlite(t, stranger.db(), "SELECT hex(wrap) FROM dek_wraps WHERE raft_node_id = 1"))
	cmd := exec.Command("age", "-d", "-i", stranger.file("node.key"))
	cmd.Stdin = bytes.NewReader(wrap)
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("the wrap of node 1 opens with the identity of node 2: %d bytes", len(out))
	}
}

// testFileModes: what is secret is its owner's only, and so is the directory.
func testFileModes(t *testing.T, c *cluster) {
	for _, m := range c.members {
		want := map[string]fs.FileMode{".": fs.ModeDir | 0o700, "node.key": 0o600, "muster.db": 0o600,
			"tls":          fs.ModeDir | 0o700,
			"tls/http.key": 0o600, "tls/transport.key": 0o600}
		if m.n == 1 {
			want["admin.token"] = 0o600
		}
		for name, mode := range want {
			info, err := os.Stat(m.file(name))
			if err != nil {
				t.Error(err)
			} else if info.Mode() != mode {
				t.Errorf("%s of node %d has mode %v, want %v", name, m.n, info.Mode(), mode)
			}
		}
		for _, name := range []string{"ca.crt", "node.json", "raft"} {
			if _, err := os.Stat(m.file(name)); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(m.file("founding.json")); err == nil {
			t.Errorf("node %d keeps founding.json", m.n)
		}
		if _, err := os.Stat(m.file("admin.token")); err == nil && m.n != 1 {
			t.Errorf("node %d has an admin.token; only the founder writes one", m.n)
		}
	}
}

// testSameEverywhere: a member answers for the whole cluster, whichever it is.
func testSameEverywhere(t *testing.T, c *cluster) {
	leader := c.leader(t)
	u := c.admin(t)
	members := u.do(leader, "GET", "/api/v1/cluster/members", "")
	raft := u.do(leader, "GET", "/v1/operator/raft/configuration", "")
	for _, m := range c.members {
		if got := u.do(m, "GET", "/api/v1/cluster/members", ""); got.body != members.body || got.status != 200 {
			t.Errorf("node %d lists the members\n%v\nand the leader\n%v", m.n, got, members)
		}
		if got := u.do(m, "GET", "/v1/operator/raft/configuration", ""); got.body != raft.body || got.status != 200 {
			t.Errorf("node %d shows the raft configuration\n%v\nand the leader\n%v", m.n, got, raft)
		}
		st := m.status(t)
		if !st.Ready || !st.Initialized || st.Cluster.NodeID != uint64(m.n) || st.Cluster.IsLeader != (m == leader) ||
			st.Cluster.LeaderNodeID != uint64(leader.n) || st.Cluster.LeaderAPIAddress != "https://"+leader.api ||
			st.Cluster.ClusterID != c.id {
			t.Errorf("the status of node %d: %+v %+v", m.n, st, *st.Cluster)
		}
	}
	// The golden order of the documented fields, with this cluster's own values.
	one := u.members(t, leader)[0]
	prefix := fmt.Sprintf(`{"result":[{"nodeId":1,"raftAddress":"%s","apiAddress":"https://%s","binaryVersion":"%s",`+
		`"suffrage":"voter","isLeader":%v,"drainState":"active","id":"%s","name":"node-1",`,
		c.members[0].raft, c.members[0].api, one.BinaryVersion, leader.n == 1, one.ID)
	if !strings.HasPrefix(members.body, prefix) {
		t.Errorf("the list of members is\n%s\nand should begin with\n%s", members.body, prefix)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff",
		"X-Frame-Options": "DENY",
		"Cache-Control":   "no-store", "Strict-Transport-Security": "max-age=63072000; includeSubDomains"} {
		if got := members.header.Get(name); got != value {
			t.Errorf("header %s is %q, want %q", name, got, value)
		}
	}
	// for Consul's clients
	rest := regexp.MustCompile(`,"LastIndex":\d+,"ProtocolVersion":"3"`).ReplaceAllString(raft.body, "")
	// the servers are in the order of the Raft configuration
	for _, x := range u.members(t, leader) {
		one := fmt.Sprintf(`{"Address":"%s","ID":"%s","Leader":%v,"Node":"%s.global","RaftProtocol":"3","Voter":true}`,
			x.RaftAddress, x.ID, x.IsLeader, x.Name)
		if strings.Count(rest, one) != 1 {
			t.Errorf("the raft configuration is\n%s\nwithout\n%s", raft.body, one)
		}
		rest = strings.Replace(rest, one, "x", 1)
	}
	if !regexp.MustCompile(`^\{"Index":\d+,"Servers":\[x,x,x\]\}$`).MatchString(rest) {
		t.Errorf("the raft configuration has something else: %s", rest)
	}
}

// needles lists everything secret that this cluster has, as text or bytes.
func needles(t *testing.T, c *cluster) map[string]string {
	t.Helper()
	list := map[string]string{}
	add := func(what string, raw []byte) {
		list[what] = string(raw)
		list[what+" in hexadecimal"] = hex.EncodeToString(raw)
		list[what+" in Base64"] = base64.RawStdEncoding.EncodeToString(raw)
		list[what+" in URL Base64"] = base64.RawURLEncoding.EncodeToString(raw)
	}
	c.mu.Lock()
	for text, what := range c.secrets {
		list[fmt.Sprintf("%s (%.12s…)", what, text)] = text
		if raw, err := base64.RawURLEncoding.DecodeString(text); err == nil && what == "a join token" && len(list) < 60 {
			add(fmt.Sprintf("the MAC of a join token (%.12s…)", text), raw[len(raw)-32:])
		}
	}
	c.mu.Unlock()
	m := c.members[0]
	dek := m.dek(t)
	add("the data-encryption key", dek[:])
	open := func(name, query string) []byte {
		sealed, err := hex.DecodeString(sqlite(t, m.db(), query))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := dek.Open(name, 1, sealed)
		if err != nil {
			t.Fatalf("%s does not open with the key from age: %v", name, err)
		}
		return plain
	}
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		pem := open(store.AuthoritySecret(kind, 1),
			fmt.Sprintf("SELECT hex(sealed_key) FROM authorities WHERE kind = '%v'", kind))
		key, err := certs.ParseKey(pem)
		if err != nil {
			t.Fatal(err)
		}
		scalar, err := key.(*ecdsa.PrivateKey).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		add(fmt.Sprintf("the private key of the %v CA", kind), scalar)
	}
	names := strings.Fields(sqlite(t, m.db(), "SELECT name FROM sealed_secrets WHERE dek_generation = 1"))
	if len(names) < 2 {
		t.Errorf("the sealed secrets are %v", names)
	}
	for _, name := range names {
		add("the sealed secret "+name, open(name, "SELECT hex(sealed) FROM sealed_secrets WHERE name = '"+name+"'"))
	}
	for _, m := range c.members {
		for line := range strings.Lines(string(m.read(t, "node.key"))) {
			if strings.HasPrefix(line, "AGE-SECRET-KEY-") {
				list[fmt.Sprintf("the identity of node %d", m.n)] = strings.TrimSpace(line)
			}
		}
		for _, name := range []string{"tls/http.key", "tls/transport.key"} {
			key, err := certs.ParseKey(m.read(t, name))
			if err != nil {
				t.Fatal(err)
			}
			scalar, _ := key.(*ecdsa.PrivateKey).Bytes()
			add(fmt.Sprintf("%s of node %d", name, m.n), scalar)
		}
	}
	list["a private key in PEM"] = "PRIVATE KEY-----"
	return list
}

// testNoSecretInTheOpen comes last: after all that was done to this cluster, nothing secret is in a database, in the
// Raft log, in a dump or in what a member has logged. Only the files that are made for secrets have them.
func testNoSecretInTheOpen(t *testing.T, c *cluster) {
	secrets := needles(t, c)
	t.Logf("looking for %d secrets", len(secrets))
	look := func(where string, data []byte) {
		for what, text := range secrets {
			if bytes.Contains(data, []byte(text)) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
	for _, m := range c.members {
		keep := []string{"node.key", "tls/http.key", "tls/transport.key", "admin.token"}
		err := filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
			name, _ := filepath.Rel(m.dir, path)
			if err != nil || d.IsDir() || slices.Contains(keep, name) {
				return nil // a file may go while we look: the mirror is replaced all the time
			}
			data, _ := os.ReadFile(path)
			look(fmt.Sprintf("%s of node %d", name, m.n), bytes.TrimRight(data, "\x00"))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		log, _ := os.ReadFile(m.log)
		look(fmt.Sprintf("the log of node %d", m.n), log)
		dump := sqlite(t, m.db(), ".dump")
		look(fmt.Sprintf("the dump of node %d", m.n), []byte(dump))
		look(fmt.Sprintf("the dump of node %d, hexadecimal", m.n), []byte(strings.ToLower(dump)))
	}
	// The search itself finds what is there.
	if !bytes.Contains(c.members[0].read(t, "admin.token"), []byte(c.token)) || len(secrets) < 20 {
		t.Errorf("the search looks for the wrong things: %d secrets", len(secrets))
	}
}
