package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testSecrets: the secrets API and its commands.
func testSecrets(t *testing.T, c *cluster) {
	u := c.admin(t)
	type info struct {
		Name, Value, Encoding string
		Version, Generation   uint64
	}
	value := "correct horse battery staple \u00e4 </script>"
	c.secret("a secret's value", value)
	body, _ := json.Marshal(map[string]string{"value": value})
	if a := u.do(c.members[1], "PUT", "/api/v1/cluster/secrets/db.password", string(body)); a.status != 201 ||
		strings.Contains(a.body, "horse") {
		t.Errorf("the first version: %v", a)
	}
	for _, m := range c.members {
		if x := get[info](t, u, m, "GET", "/api/v1/cluster/secrets/db.password", ""); x.Value != value || x.Version != 1 ||
			x.Encoding != "" || x.Generation == 0 {
			t.Errorf("through node %d: %+v", m.n, x)
		}
	}
	second := "second version of the value"
	c.secret("a secret's value", second)
	if a := u.do(c.members[2], "PUT", "/api/v1/cluster/secrets/db.password", `{"value":"`+second+`"}`); a.status != 200 ||
		!strings.Contains(a.body, `"version":2`) {
		t.Errorf("the second version: %v", a)
	}
	// Bytes, byte for byte, by hand and by command.
	raw := []byte("\x00\xff\x80binary\r\n")
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	data := c.members[0].dir
	if out := muster(t, "secret", "put", "blob", "--file", file, "--data", data); out.code != 0 || out.stdout != "" ||
		out.stderr != "secret blob has version 1\n" {
		t.Errorf("secret put: %+v", out)
	}
	if x := get[info](t, u, c.members[1], "GET", "/api/v1/cluster/secrets/blob", ""); x.Encoding != "base64" ||
		x.Value != base64.StdEncoding.EncodeToString(raw) {
		t.Errorf("bytes are shown as %+v", x)
	}
	if out := muster(t, "secret", "get", "blob", "--data", data); out.code != 0 || out.stdout != string(raw) ||
		out.stderr != "" {
		t.Errorf("secret get: %+v", out)
	}
	typed := command{stdin: "typed by hand\n"}.run(t, "secret", "put", "typed", "--data", data)
	if out := muster(t, "secret", "get", "typed", "--data", data); typed.code != 0 || out.stdout != "typed by hand\n" {
		t.Errorf("secret put from stdin, get: %+v %+v", typed, out)
	}
	if out := muster(t, "secret", "list", "--data", data); out.code != 0 ||
		!strings.Contains(out.stdout, "\ndb.password  2 ") || strings.Contains(out.stdout, second) {
		t.Errorf("secret list: %+v", out)
	}
	if out := muster(t, "secret", "delete", "typed", "--yes", "--data", data); out.code != 0 {
		t.Errorf("secret delete: %+v", out)
	}
	u.do(c.members[1], "GET", "/api/v1/cluster/secrets/typed", "").expect(t, "a secret that was deleted", 404,
		`{"error":"secret not found"}`)
	u.do(c.members[1], "DELETE", "/api/v1/cluster/secrets/typed", "").expect(t, "deleting it again", 404,
		`{"error":"secret not found"}`)
	for i, m := range c.members[:2] {
		if a := u.do(m, "PUT", pinPath, pinBody, "Idempotency-Key: pin"); a.status != 201 ||
			!strings.Contains(a.body, `"version":1`) {
			t.Errorf("try %d with the same Idempotency-Key: %v", i+1, a)
		}
	}
	big := strings.Repeat("k", 64<<10)
	u.put(t, c.members[1], "big", big)
	if got, err := u.value(c.members[2], "big"); err != nil || got != big {
		t.Errorf("64 KiB: %d bytes, %v", len(got), err)
	}
}

// The request that puts a short secret, with an Idempotency-Key.
const pinPath, pinBody = "/api/v1/cluster/secrets/pin", `{"value":"4711"}`

// testSecretHash: what the database keeps of a request must not let anybody test guesses of a short secret.
func testSecretHash(t *testing.T, c *cluster) {
	sum := sha256.Sum256([]byte("PUT " + pinPath + "\n" + pinBody))
	if dump := sqlite(t, c.leader(t).db(), ".dump"); strings.Contains(strings.ToLower(dump), hexOf(sum[:])) {
		t.Error("the mirror holds SHA-256 of the request that carries the secret, without a salt or a key: whoever reads " +
			"the file can try all PINs")
	}
}

// testKeysInTheOpen: no value, token or key is in a mirror, a log, the audit or any other file of a member.
func testKeysInTheOpen(t *testing.T, c *cluster) {
	u := c.admin(t)
	for _, format := range []string{"muster", "zlayer"} {
		token := u.create(t, c.members[0], `{"format":"`+format+`"}`)
		if a := u.do(c.members[0], "DELETE", "/api/v1/cluster/join-tokens/"+token.ID, ""); a.status != 200 {
			t.Errorf("revoke a token of format %s: %v", format, a)
		}
	}
	needles := map[string]string{"PRIVATE KEY-----": "a private key"}
	c.mu.Lock()
	for text, what := range c.secrets {
		if len(text) < 60000 {
			needles[text] = what
		}
	}
	c.mu.Unlock()
	needles["value of secret number "], needles["written by "] = "a secret's value", "a secret's value"
	for _, m := range c.members {
		var generation uint64
		if _, err := fmt.Sscan(sqlite(t, m.db(), "SELECT generation FROM dek_generations WHERE state = 'active'"),
			&generation); err != nil {
			t.Fatal(err)
		}
		dek, err := ageOpens(t, m.db(), m.file("node.key"), generation, uint64(m.n))
		if err != nil {
			t.Fatal(err)
		}
		needles[string(dek[:])], needles[hexOf(dek[:])] = "the data-encryption key", "the data-encryption key"
		for _, name := range strings.Fields(sqlite(t, m.db(), "SELECT name FROM sealed_secrets")) {
			plain, err := dek.Open(name, generation,
				unhex(t, sqlite(t, m.db(), "SELECT hex(sealed) FROM sealed_secrets WHERE name = '"+name+"'")))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			needles[string(plain)], needles[hexOf(plain)] = name, name
			needles[base64.StdEncoding.EncodeToString(plain)] = name
		}
	}
	t.Logf("looking for %d secrets", len(needles))
	search(t, c, needles)
	audit := sqlite(t, c.members[0].db(), "SELECT DISTINCT action FROM audit ORDER BY action")
	for _, action := range []string{"dek.rotate", "dek.reencrypt", "dek.retire", "key.rotate", "secret.put",
		"secret.delete", "join_token.create", "join_token.revoke", "member.join", "member.rejoin", "member.remove"} {
		if !strings.Contains("\n"+audit+"\n", "\n"+action+"\n") {
			t.Errorf("the audit has no %s; it has %s", action, strings.ReplaceAll(audit, "\n", " "))
		}
	}
	if !bytes.Contains(c.members[0].read(t, "node.json"), []byte(c.id)) || len(needles) < 80 {
		t.Errorf("the search looks for the wrong things: %d", len(needles))
	}
}
