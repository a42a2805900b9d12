package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
)

// TestCommandLine: the command line against a real cluster.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	onThree(t,
		part{"as in the README", testCommandLine},
		part{"join tokens", testJoinTokenCommands},
		part{"API tokens", testAPITokenCommands},
		part{"sql", testSQL},
		part{"exit status", testExitStatus},
		part{"connections end", testConnectionsEnd},
	)
}

// env is what an operator exports to talk to a cluster from elsewhere.
func (c *cluster) env(token string) []string {
	var addrs []string
	for _, m := range c.members {
		addrs = append(addrs, "https://"+m.api)
	}
	return []string{"MUSTER_ADDR=" + strings.Join(addrs, ","), "MUSTER_TOKEN=" + token, "MUSTER_CACERT=" +
		c.members[0].file("ca.crt")}
}

// ok runs a command that must succeed.
func (c command) ok(t *testing.T, args ...string) outcome {
	t.Helper()
	out := c.run(t, args...)
	if out.code != 0 {
		t.Errorf("muster %s: exit status %d: %s", strings.Join(args, " "), out.code, out.stderr)
	}
	return out
}

func jsonOf[T any](t *testing.T, out outcome) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(out.stdout), &v); err != nil {
		t.Errorf("%v: %s", err, out.stdout)
	}
	return v
}

// testCommandLine: what the README shows works against a real cluster, and a secret stands alone on stdout.
func testCommandLine(t *testing.T, c *cluster) {
	cmd := command{env: c.env(c.token)}
	var rows []string
	eventually(t, formed, "muster members shows everybody alive", func() error { // a new leader has asked nobody yet
		out := cmd.ok(t, "members")
		rows = strings.Split(strings.TrimSpace(out.stdout), "\n")
		if !strings.HasPrefix(rows[0], "ID") || out.stderr != "" {
			t.Errorf("members: %s%s", out.stdout, out.stderr)
		}
		for i, m := range c.members {
			if f := strings.Fields(rows[i+1]); len(f) < 11 || f[0] != fmt.Sprint(m.n) || f[1] != fmt.Sprintf("node-%d", m.n) ||
				f[2] != "alive" || f[3] != "voter" || f[8] != "https://"+m.api || f[9] != m.raft {
				return fmt.Errorf("row %d of the members: %s", i+1, rows[i+1])
			}
		}
		return nil
	})
	if list := jsonOf[[]client.Member](t, cmd.ok(t, "members", "-o", "json")); len(list) != len(rows)-1 ||
		list[0].NodeID != 1 || list[0].ID == "" {
		t.Errorf("members -o json: %+v", list)
	}
	out := cmd.ok(t, "status")
	if rows := strings.Split(strings.TrimSpace(out.stdout), "\n"); len(rows) != 4 ||
		strings.Count(out.stdout, "Leader") != 1 || strings.Count(out.stdout, "Follower") != 2 ||
		strings.Count(out.stdout, c.id) != 3 {
		t.Errorf("status: %s", out.stdout)
	}
	// On a member's own machine --data finds everything, and the founder's token.
	if out := muster(t, "members", "--data", c.members[0].dir); out.code != 0 {
		t.Errorf("members --data: %s", out.stderr)
	}
	if out := muster(t, "members", "--data", c.members[1].dir); out.code != 1 ||
		!strings.Contains(out.stderr, "there is no token") {
		t.Errorf("members --data of a member without a token: exit status %d: %s", out.code, out.stderr)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(c.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	muster(t, "members", "--addr", "127.0.0.1:1,"+c.members[2].api, "--token-file", file, "--cacert",
		c.members[2].file("ca.crt"))
	if out := (command{stdin: c.token}).run(t, "members", "--addr", c.members[2].api, "--token-file", "-", "--cacert",
		c.members[2].file("ca.crt")); out.code != 0 {
		t.Errorf("members with the token on stdin: %s", out.stderr)
	}
}

// testJoinTokenCommands: a token stands alone on stdout, once, and never in a list.
func testJoinTokenCommands(t *testing.T, c *cluster) {
	cmd := command{env: c.env(c.token)}
	out := cmd.ok(t, "join-token", "create", "--node-id", "870", "--ttl", "10m")
	token := strings.TrimSuffix(out.stdout, "\n")
	c.secret("a join token", token)
	parsed, err := certs.ParseJoinToken(token)
	if err != nil || strings.ContainsAny(token, " \n") || strings.Contains(out.stderr, token) {
		t.Fatalf("join-token create: %v: %q %q", err, out.stdout, out.stderr)
	}
	if claims := parsed.Claims(); claims.NodeID != 870 || claims.ClusterID != c.id || len(claims.Addresses) < 3 ||
		claims.ExpiresAt-claims.IssuedAt != 600 {
		t.Errorf("the token says %+v", claims)
	}
	made := jsonOf[client.NewJoinToken](t,
		cmd.ok(t, "join-token", "create", "--max-uses", "4", "--mode", "replicate", "-o", "json"))
	c.secret("a join token", made.Token)
	if made.ID == "" || made.Token == "" || made.MaxUses != 4 || made.Mode != "replicate" {
		t.Errorf("join-token create -o json: %+v", made)
	}
	list := cmd.ok(t, "join-token", "list")
	if strings.Contains(list.stdout, token) || strings.Contains(list.stdout, made.Token) ||
		!strings.Contains(list.stdout, made.ID) {
		t.Errorf("join-token list: %s", list.stdout)
	}
	find := func() (x client.JoinToken) {
		for _, x := range jsonOf[[]client.JoinToken](t, cmd.ok(t, "join-token", "list", "-o", "json")) {
			if x.ID == made.ID {
				return x
			}
		}
		t.Errorf("token %s is not in the list", made.ID)
		return x
	}
	if x := find(); x.State != "valid" || x.Uses != 0 || x.MaxUses != 4 {
		t.Errorf("the token in the list: %+v", x)
	}
	if out := cmd.ok(t, "join-token", "revoke", made.ID); out.stdout != "" || !strings.Contains(out.stderr, "is revoked") {
		t.Errorf("join-token revoke: %q %q", out.stdout, out.stderr)
	}
	if x := find(); x.State != "revoked" {
		t.Errorf("the token in the list after it was revoked: %+v", x)
	}
}

// testAPITokenCommands: the same for API tokens, which say what they lack.
func testAPITokenCommands(t *testing.T, c *cluster) {
	cmd := command{env: c.env(c.token)}
	out := cmd.ok(t, "api-token", "create", "--name", "reader", "--scope", "cluster:read,peering:read")
	reader := strings.TrimSuffix(out.stdout, "\n")
	c.secret("an API token", reader)
	if strings.ContainsAny(reader, " \n") || len(reader) < 40 || strings.Contains(out.stderr, reader) {
		t.Errorf("api-token create: %q %q", out.stdout, out.stderr)
	}
	read := command{env: c.env(reader)}
	read.ok(t, "members")
	if out := read.run(t, "join-token", "create"); out.code != 1 || out.stdout != "" ||
		!strings.HasPrefix(out.stderr,
			"muster: Forbidden (403)\nIt takes the scope cluster:manage. The token \"reader\" (") ||
		!strings.HasSuffix(out.stderr, ") has cluster:read, peering:read.\n") {
		t.Errorf("join-token create with a reader's token: exit status %d: %q %q", out.code, out.stdout, out.stderr)
	}
	var id string
	for _, x := range jsonOf[[]client.APIToken](t, cmd.ok(t, "api-token", "list", "-o", "json")) {
		if x.Name == "reader" {
			id = x.ID
		}
	}
	if out := cmd.ok(t, "api-token", "list"); !strings.Contains(out.stdout, id) || strings.Contains(out.stdout, reader) ||
		!strings.Contains(out.stdout, "cluster:read,peering:read") {
		t.Errorf("api-token list: %s", out.stdout)
	}
	cmd.ok(t, "api-token", "revoke", id)
	if out := read.run(t, "members"); out.code != 1 || out.stderr != "muster: Invalid token (401)\n" {
		t.Errorf("members with a revoked token: exit status %d: %q", out.code, out.stderr)
	}
}

// testSQL: the operator's window reads everything and writes nothing.
func testSQL(t *testing.T, c *cluster) {
	cmd := command{env: c.env(c.token)}
	awaitCopies(t, c, c.members...)
	if out := cmd.ok(t, "sql",
		"SELECT node, name FROM v_members WHERE node <= 3"); out.stdout != "node  name\n1     node-1\n2     node-2\n3     "+
		"node-3\n" {
		t.Errorf("sql: %q", out.stdout)
	}
	if r := jsonOf[struct {
		Columns []string
		Rows    [][]json.RawMessage
	}](t, cmd.ok(t, "sql", "-o", "json",
		"SELECT 9007199254740993 AS n, NULL AS none, 'x' AS text, x'00ff' AS blob")); fmt.Sprintf("%s %s", r.Columns,
		r.Rows) != `[n none text blob] [[9007199254740993 null "x" "00ff"]]` {
		t.Errorf("sql -o json: %+v", r)
	}
	outside := filepath.Join(t.TempDir(), "stolen.db")
	unchanged(t, c, func(u *user) {
		for _, query := range []string{
			"DELETE FROM members", "UPDATE cluster SET revision = revision + 1", "INSERT INTO settings VALUES ('a','b',1)",
			"DROP TABLE members",
			"CREATE TABLE x (y)", "CREATE TEMP TABLE x AS SELECT * FROM api_tokens; DELETE FROM members", "VACUUM",
			"VACUUM INTO '" + outside + "'",
			"ATTACH '" + outside + "' AS x", "ATTACH DATABASE '/etc/passwd' AS x", "PRAGMA query_only = 0; DELETE FROM members",
			"PRAGMA writable_schema = 1; DELETE FROM members",
			"SELECT 1; DELETE FROM members", "REINDEX", "BEGIN IMMEDIATE; DELETE FROM members; COMMIT",
			"SELECT load_extension('/tmp/x')", "SELECT writefile('" + outside + "', 'x')",
			"SELECT readfile('/etc/passwd')", "nonsense", "SELECT * FROM nothing", "SELECT", "",
		} {
			out := cmd.run(t, "sql", query)
			written := strings.HasPrefix(query, "CREATE TEMP") || strings.HasPrefix(query, "SELECT 1;") ||
				strings.HasPrefix(query, "PRAGMA query_only") ||
				strings.HasPrefix(query, "PRAGMA writable") || strings.HasPrefix(query, "BEGIN")
			if out.code != 1 && !written {
				t.Errorf("sql %q: exit status %d: %s %s", query, out.code, out.stdout, out.stderr)
			}
			if out.code == 1 && (out.stdout != "" || !strings.HasPrefix(out.stderr, "muster: ") ||
				strings.Count(out.stderr, "\n") != 1) {
				t.Errorf("sql %q: %q %q", query, out.stdout, out.stderr)
			}
		}
	})
	if _, err := os.Stat(outside); err == nil {
		t.Error("sql has written a file")
	}
	for _, m := range c.members {
		if got := sqlite(t, m.db(), "SELECT count(*) FROM members WHERE raft_node_id <= 3"); got != "3" {
			t.Errorf("node %d has %s of the first members left", m.n, got)
		}
	}
	// A query without end is given up.
	out := cmd.run(t, "sql", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
	if out.code != 1 || out.late(20*time.Second) {
		t.Errorf("a query without end: exit status %d after %v: %s", out.code, out.took, out.stderr)
	}
	if out := cmd.ok(t, "sql",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT i FROM n"); strings.Count(
		out.stdout, "\n") != 10_001 || !strings.Contains(out.stderr, "there are more than") {
		t.Errorf("20000 rows: %d lines, %s", strings.Count(out.stdout, "\n"), out.stderr)
	}
}

// testExitStatus: 0 when it worked, 1 when it was refused or failed, 2 when the command line made no sense.
func testExitStatus(t *testing.T, c *cluster) {
	env := c.env(c.token)
	closed := fmt.Sprintf("127.0.0.1:%d", freePort())
	for _, x := range []struct {
		args   []string
		env    []string
		code   int
		stdout string // a regular expression
		stderr string
	}{
		{[]string{"version"}, nil, 0, `^muster \S+ \(commit \S+, go1\.\S+, linux/\w+\)\n$`, `^$`},
		{[]string{"version", "-o", "json"}, nil, 0, `"version": `, `^$`},
		{[]string{"--help"}, nil, 0, `Usage:`, ``},
		{[]string{"completion", "bash"}, nil, 0, `bash completion`, `^$`},
		{[]string{"completion", "zsh"}, nil, 0, `compdef`, `^$`},
		{[]string{"completion", "fish"}, nil, 0, `complete -c muster`, `^$`},
		{nil, nil, 2, `^$`, `a command is missing`},
		{[]string{"membres"}, nil, 2, `^$`, `^muster: unknown command "membres"; did you mean member or members`},
		{[]string{"members", "--nothing"}, nil, 2, `^$`, `^muster: unknown flag: --nothing`},
		{[]string{"members", "-o", "xml"}, nil, 2, `^$`, `^muster: -o "xml" is none of table, json, name`},
		{[]string{"members", "extra"}, nil, 2, `^$`, `^muster: "extra" is one argument too many`},
		{[]string{"serve"}, nil, 2, `^$`, `^muster: --data is missing`},
		{[]string{"serve", "--data"}, nil, 2, `^$`, `^muster: flag needs an argument`},
		{[]string{"dev", "--nodes", "0"}, nil, 2, `^$`, `^muster: --nodes must be between`},
		{[]string{"join-token", "create", "--node-id", "x"}, env, 2, `^$`, `^muster: --node-id must be a whole number`},
		{[]string{"join-token", "create", "--node-id", "0"}, env, 2, `^$`, `^muster: --node-id must be at least 1`},
		{[]string{"join-token", "create", "--ttl", "-1s"}, env, 2, `^$`, `^muster: --ttl must be more than 0s`},
		{[]string{"join-token", "create", "--node-id", "1"}, env, 1, `^$`,
			`^muster: node 1 is already a member of the cluster \(409\)\n$`},
		{[]string{"join-token", "revoke"}, env, 2, `^$`, `^muster: ID is missing`},
		{[]string{"join-token", "revoke", "nothing"}, env, 1, `^$`, `^muster: there is no join token "nothing"\n$`},
		{[]string{"api-token", "create", "--name", "x"}, env, 2, `^$`, `^muster: --scope is missing`},
		{[]string{"api-token", "create", "--name", "x", "--scope", "root"}, env, 2, `^$`,
			`^muster: --scope "root" is none of`},
		{[]string{"api-token", "revoke", "nothing"}, env, 1, `^$`, `^muster: there is no API token "nothing"\n$`},
		{[]string{"sql"}, env, 2, `^$`, `^muster: the query is missing`},
		{[]string{"members"}, env[:1], 3, `^$`, `CA that this machine does not know: give the cluster's CA with --cacert`},
		{[]string{"members"}, []string{env[0], env[2]}, 1, `^$`,
			`^muster: Invalid token \(401\): there is no token; give --token-file`},
		{[]string{"members"}, []string{env[0], env[2], "MUSTER_TOKEN=wrong"}, 1, `^$`, `^muster: Invalid token \(401\)\n$`},
		{[]string{"members", "--addr", closed}, env, 3, `^$`, `^muster: no answer from https://` + regexp.QuoteMeta(closed) +
			`: connection refused\n$`},
		{[]string{"members", "--addr", "ftp://x"}, env, 2, `^$`, `^muster: bad address`},
		{[]string{"members", "--addr", c.members[0].raft}, env, 3, `^$`, `^muster: no answer from`},
		{[]string{"members", "--cacert", "/nowhere"}, env, 1, `^$`, `^muster: cannot read the CA certificate`},
		{[]string{"members", "--token-file", "/nowhere"}, env, 1, `^$`, `^muster: cannot read the token`},
		{[]string{"members", "--data", t.TempDir()}, nil, 1, `^$`, `is not the data directory of a member`},
		{[]string{"status", "--addr", closed}, env, 3, ``, `muster: no server answered\n$`},
		{[]string{"status", "--addr", closed + "," + c.members[0].api}, env, 0, `Leader|Follower`, `connection refused`},
	} {
		out := command{env: x.env, dir: t.TempDir(), limit: 25 * time.Second}.run(t, x.args...)
		what := "muster " + strings.Join(x.args, " ")
		if out.code != x.code {
			t.Errorf("%s: exit status %d, want %d: %s", what, out.code, x.code, out.stderr)
		}
		if !regexp.MustCompile(x.stdout).MatchString(out.stdout) || !regexp.MustCompile(x.stderr).MatchString(out.stderr) {
			t.Errorf("%s: stdout %.300q, stderr %.300q, want %q and %q", what, out.stdout, out.stderr, x.stdout, x.stderr)
		}
	}
}

// testConnectionsEnd: connections that are made and left do not stay: open files come down to where they were.
func testConnectionsEnd(t *testing.T, c *cluster) {
	open := func(m *member) int {
		list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid))
		return len(list)
	}
	for _, m := range c.members {
		// What earlier tests have left open goes first.
		eventually(t, formed, fmt.Sprintf("node %d closes what nobody uses", m.n), func() error {
			if n := open(m); n > 120 {
				return fmt.Errorf("%d files are open", n)
			}
			return nil
		})
		before := open(m)
		var conns []net.Conn
		for i := range 60 {
			addr := m.api
			if i%3 == 0 {
				addr = m.raft
			}
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if i%3 == 1 {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
				_ = conn.(*tls.Conn).Handshake()
				_, _ = conn.Write([]byte("GET /api/v1/st")) // and no more
			}
			conns = append(conns, conn)
		}
		if !m.status(t).Ready {
			t.Errorf("node %d is not ready among silent connections", m.n)
		}
		for _, conn := range conns {
			conn.Close()
		}
		eventually(t, formed, fmt.Sprintf("node %d has as many open files as before (%d)", m.n, before), func() error {
			if n := open(m); n > before+8 {
				return fmt.Errorf("%d files are open", n)
			}
			return nil
		})
	}
}
