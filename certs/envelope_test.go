package certs

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
	"pgregory.net/rapid"
)

func TestEnvelope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := NewDEK()
		name, gen := rapid.String().Draw(t, "name"), rapid.Uint64().Draw(t, "generation")
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		sealed := must(d.Seal(name, gen, plain))
		if len(sealed) != len(plain)+41 || sealed[0] != 1 {
			t.Fatalf("%d bytes", len(sealed))
		}
		if got, err := d.Open(name, gen, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Fatal(err)
		}
		bad := bytes.Clone(sealed)
		bit := rapid.IntRange(0, len(bad)*8-1).Draw(t, "bit")
		bad[bit/8] ^= 1 << (bit % 8)
		cut := rapid.IntRange(0, len(sealed)-1).Draw(t, "cut")
		for what, err := range map[string]error{
			"name":       second(d.Open(name+"x", gen, sealed)),
			"generation": second(d.Open(name, gen+1, sealed)),
			"key":        second(NewDEK().Open(name, gen, sealed)),
			"bit":        second(d.Open(name, gen, bad)),
			"cut":        second(d.Open(name, gen, sealed[:cut])),
			"longer":     second(d.Open(name, gen, append(sealed, 0))),
		} {
			if err != ErrSealed {
				t.Fatalf("%s: %v", what, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// TestEnvelopeFormat nails the bytes: values sealed today must open in later
// versions.
func TestEnvelopeFormat(t *testing.T) {
	d := DEK(seq(0, 32))
	nonce := seq(64, 24)
	aad := must(hex.DecodeString("01" + "0000000000000002" + "6361" + "0000000000000005"))
	aead := must(chacha20poly1305.NewX(d[:]))
	sealed := aead.Seal(append([]byte{1}, nonce...), nonce, []byte("hello"), aad)
	const golden = "01404142434445464748494a4b4c4d4e4f5051525354555657" + "bc5c691cbfeaecefc06d4e4cbfa7788da8f998ad02"
	if got := hex.EncodeToString(sealed); got != golden {
		t.Errorf("%s", got)
	}
	if got, err := d.Open("ca", 5, sealed); err != nil || string(got) != "hello" {
		t.Error(err)
	}
}

func TestDEKRedacted(t *testing.T) {
	d := DEK(bytes.Repeat([]byte{0xa7}, 32))
	var outs []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%c"} {
		outs = append(outs, fmt.Sprintf(verb, d), fmt.Sprintf(verb, &d), fmt.Sprintf(verb, struct{ D DEK }{d}))
	}
	outs = append(outs, string(must(json.Marshal(map[string]any{"d": d, "p": &d}))), d.String(), d.GoString())
	var log bytes.Buffer
	untimed := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey { // whose digits may be those of a byte of the key
			return slog.Attr{}
		}
		return a
	}}
	slog.New(slog.NewTextHandler(&log, untimed)).Info("x", "d", d)
	slog.New(slog.NewJSONHandler(&log, untimed)).Info("x", "d", d)
	for _, s := range append(outs, log.String()) {
		if !strings.Contains(s, "redacted") || strings.Contains(strings.ToLower(s), "a7a7") || strings.Contains(s, "167") {
			t.Errorf("%s", s)
		}
	}
	if a, b := NewDEK(), NewDEK(); a == b {
		t.Error("not random")
	}
}
