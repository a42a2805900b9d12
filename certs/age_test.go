package certs

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age/plugin"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/nacl/box"
	"pgregory.net/rapid"
)

func hex32(s string) (out [32]byte) {
	copy(out[:], must(hex.DecodeString(s)))
	return out
}

func TestIdentityKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := must(NewIdentity())
		recipient := id.Recipient().String()
		pub := must(PublicKey(recipient))
		if got := must(Recipient(pub)); got != recipient {
			t.Fatalf("%s, want %s", got, recipient)
		}
		priv := must(PrivateKey(id))
		if !bytes.Equal(must(ecdh.X25519().NewPrivateKey(priv[:])).PublicKey().Bytes(), pub[:]) {
			t.Fatal("private and public key do not belong together")
		}
		file := EncodeIdentity(id, testNow)
		if got := must(ParseIdentity(file)); got.String() != id.String() {
			t.Fatal("identity file does not round-trip")
		}
	})
}

func TestParseIdentity(t *testing.T) {
	id := must(NewIdentity())
	if got, want := string(EncodeIdentity(id, testNow)),
		"# created: 2026-05-01T12:00:00Z\n# public key: "+id.Recipient().String()+"\n"+id.String()+"\n"; got != want {
		t.Errorf("%q", got)
	}
	secret := id.String()
	for name, in := range map[string]string{
		"empty": "", "comment": "# x\n", "two": secret + "\n" + secret, "cut": secret[:len(secret)-1],
		"recipient": id.Recipient().String(),
	} {
		if _, err := ParseIdentity([]byte(in)); err == nil || strings.Contains(err.Error(), secret[16:30]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A private key in the wrong place is refused without being repeated.
	for _, f := range []func() error{
		func() error { _, err := PublicKey(secret); return err },
		func() error { _, err := Wrap(nil, secret); return err },
	} {
		if err := f(); err == nil || strings.Contains(err.Error(), secret[16:30]) {
			t.Error(err)
		}
	}
	good := id.Recipient().String()
	for _, bad := range []string{"", strings.ToUpper(good), good[:len(good)-1], good + "q", good[:20] + "b" + good[21:],
		" " + good, "age1pq1" + good[4:]} {
		if _, err := PublicKey(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestWeakX25519(t *testing.T) {
	p := "ed" + strings.Repeat("ff", 30) + "7f"
	for _, s := range []string{
		strings.Repeat("00", 32), "01" + strings.Repeat("00", 31),
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800", // order 8
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157", // order 8
		"ec" + p[2:], p, "ee" + p[2:], // p-1, and 0 and 1 written as p and p+1
		"f6" + p[2:], strings.Repeat("ff", 32), strings.Repeat("00", 31) + "80", // not canonical
	} {
		pub := hex32(s)
		if _, err := Recipient(pub); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s: recipient: %v", s, err)
		}
		if _, err := SealBox([]byte("x"), pub); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s: box: %v", s, err)
		}
		// age itself reads such a recipient.
		recipient := must(plugin.EncodeX25519Recipient(must(ecdh.X25519().NewPublicKey(pub[:]))))
		if _, err := PublicKey(recipient); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s: public key: %v", s, err)
		}
		if _, err := Wrap([]byte("x"), recipient); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s: wrap: %v", s, err)
		}
	}
	if _, err := Recipient(hex32("eb" + p[2:])); err != nil {
		t.Errorf("p-2 is an ordinary key: %v", err)
	}
}

func TestWrap(t *testing.T) {
	id, stranger := must(NewIdentity()), must(NewIdentity())
	dek := NewDEK()
	wrapped := must(Wrap(dek[:], id.Recipient().String()))
	if got, err := Unwrap(wrapped, id); err != nil || !bytes.Equal(got, dek[:]) {
		t.Errorf("%v", err)
	}
	if _, err := Unwrap(wrapped, stranger); err != ErrUnwrap {
		t.Error(err)
	}
	for i := range wrapped { // header, MAC and body are all authenticated
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		if _, err := Unwrap(bad, id); err != ErrUnwrap {
			t.Fatalf("byte %d: %v", i, err)
		}
		if _, err := Unwrap(wrapped[:i], id); err != ErrUnwrap {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := Unwrap(must(Wrap(make([]byte, maxUnwrapped+1), id.Recipient().String())), id); err != ErrUnwrap {
		t.Error("too large:", err)
	}
}

// TestAgeCommand: design section 7 promises that the age command opens a wrap.
func TestAgeCommand(t *testing.T) {
	bin, err := exec.LookPath("age")
	if err != nil {
		t.Fatal("age is not installed: scripts/setup.sh test installs it")
	}
	id, dek := must(NewIdentity()), NewDEK()
	key, wrap := filepath.Join(t.TempDir(), "node.key"), filepath.Join(t.TempDir(), "wrap")
	for path, data := range map[string][]byte{key: EncodeIdentity(id, testNow),
		wrap: must(Wrap(dek[:], id.Recipient().String()))} {
		if err := WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bin, "-d", "-i", key, wrap)
	cmd.Stderr = os.Stderr
	if out, err := cmd.Output(); err != nil || !bytes.Equal(out, dek[:]) {
		t.Error(err)
	}
}

func TestSealBox(t *testing.T) {
	// Made by libsodium 1.0.18's crypto_box_seal through ctypes: the private
	// key is the bytes 1..32, the message the bytes 0..31.
	priv := [32]byte(seq(1, 32))
	pub := hex32("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c")
	golden := must(hex.DecodeString(
		"fe79b0a683cf46f79908da9788ded864ccfd6e8226f251d75acf74553cac9e2c2e33f468e9a05f35c5d0584e88aa59aa" +
			"74baa98c9e172d0c4f11750ffd8f231fe390ba6eb8eb87d72089e0204c9c0577"))
	if got, err := OpenBox(golden, priv); err != nil || !bytes.Equal(got, seq(0, 32)) {
		t.Errorf("libsodium's box: %v", err)
	}
	for i := range golden {
		bad := bytes.Clone(golden)
		bad[i] ^= 1
		if _, err := OpenBox(bad, priv); err != ErrUnwrap {
			t.Fatalf("byte %d: %v", i, err)
		}
		if _, err := OpenBox(golden[:i], priv); err != ErrUnwrap {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		msg := rapid.SliceOf(rapid.Byte()).Draw(t, "msg")
		sealed := must(SealBox(msg, pub))
		if len(sealed) != len(msg)+48 {
			t.Fatalf("%d bytes", len(sealed))
		}
		if got, err := OpenBox(sealed, priv); err != nil || !bytes.Equal(got, msg) {
			t.Fatal(err)
		}
		// By hand: epk | box with the nonce BLAKE2b-24(epk | pk).
		epk, nonce := [32]byte(sealed[:32]), [24]byte{}
		h := must(blake2b.New(24, nil))
		h.Write(epk[:])
		h.Write(pub[:])
		h.Sum(nonce[:0])
		if got, ok := box.Open(nil, sealed[32:], &nonce, &epk, &priv); !ok || !bytes.Equal(got, msg) {
			t.Fatal("not a sealed box")
		}
	})
}
