package node_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/node"
)

// What a power cut or a hand has done to a file of a stopped member.
var (
	gone    = os.Remove
	empty   = func(file string) error { return os.Truncate(file, 0) }
	half    = func(file string) error { return os.Truncate(file, 100) }
	garbage = func(file string) error { return os.WriteFile(file, []byte("garbage"), 0o600) }
)

// TestAPICertificateDamaged: a member whose API certificate or key is damaged starts, and a leader gives it another
// one.
func TestAPICertificateDamaged(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := start(t, config(dir)).Close(); err != nil {
		t.Fatal(err)
	}
	other := func(file string) error {
		key, err := os.ReadFile(filepath.Join(dir, "tls/transport.key"))
		return errors.Join(err, os.WriteFile(file, key, 0o600))
	}
	for _, name := range []string{"tls/http.crt", "tls/http.key"} {
		for what, harm := range map[string]func(string) error{"gone": gone, "empty": empty, "half": half, "garbage": garbage,
			"another": other} {
			if err := harm(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			n := start(t, again(t, dir))
			c := dial(t, dir)
			await(t, "with "+what+" "+name+" clients trust the member again", func(ctx context.Context) bool {
				_, err := c.Members(ctx)
				return err == nil
			})
			c.Close()
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestTransportCertificateDamaged: what only the operator can mend stops the start with a sentence that says how.
func TestTransportCertificateDamaged(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := start(t, config(dir)).Close(); err != nil {
		t.Fatal(err)
	}
	for name, next := range map[string]string{"tls/transport.crt": "--rejoin", "tls/transport-ca.crt": "--rejoin",
		"tls/transport.key": "restore tls/transport.key from a copy, or remove the member"} {
		file := filepath.Join(dir, name)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for what, harm := range map[string]func(string) error{"gone": gone, "empty": empty, "half": half,
			"garbage": garbage} {
			if err := harm(file); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), whole)
			n, err := node.Start(ctx, again(t, dir))
			cancel()
			if err == nil {
				n.Close()
			}
			if err == nil || !strings.Contains(err.Error(), next) {
				t.Errorf("%s %s: %v", what, name, err)
			}
			if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	start(t, again(t, dir))
}
