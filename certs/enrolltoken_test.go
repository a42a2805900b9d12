package certs

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A token that the original has made (elastic/elasticsearch issue 81313), byte for byte.
func TestEnrollTokenGolden(t *testing.T) {
	const text = "eyJ2ZXIiOiI4LjEuMCIsImFkciI6WyIxOTIuMTY4LjEuMTM3OjE5MzAwIl0sImZnciI6ImRjYjMyMzkyZGU0Mzg3NG" +
		"QyN2VhYThmZWM1ZDJmMmZhZjkxZDcwNTE1ZmIxZGRhNzlmNjFiZDhlMjE2YzY1ZjciLCJrZXkiOiJ4YktHZ0gwQm9j" +
		"S1d0b2xRVmlQYzo0TW4zRm5FRlN1NmtjLWhKNF9XdEZRIn0="
	want := EnrollToken{Version: "8.1.0", Addresses: []string{"192.168.1.137:19300"},
		Fingerprint: "dcb32392de43874d27eaa8fec5d2f2faf91d70515fb1dda79f61bd8e216c65f7",
		Key:         "xbKGgH0BocKWtolQViPc:4Mn3FnEFSu6kc-hJ4_WtFQ"}
	got, err := ParseEnrollToken(text)
	if err != nil || got.Key != want.Key || got.Version != want.Version || got.Fingerprint != want.Fingerprint ||
		!slices.Equal(got.Addresses, want.Addresses) {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if again, err := want.Encode(); err != nil || again != text {
		t.Errorf("encoded %s, %v", again, err)
	}
}

func TestEnrollTokenIsStrict(t *testing.T) {
	enc := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	const full = `{"ver":"8.1.0","adr":["a:1"],"fgr":"ff","key":"i:s"`
	for name, text := range map[string]string{
		"empty":                  "",
		"not Base64":             "%%%",
		"not JSON":               enc("x"),
		"a field more":           enc(full + `,"x":1}`),
		"a field less":           enc(`{"ver":"8.1.0","adr":["a:1"],"fgr":"ff"}`),
		"no address":             enc(`{"ver":"8.1.0","adr":[],"fgr":"ff","key":"i:s"}`),
		"something behind it":    enc(full + `}{}`),
		"cut off":                enc(full + `}`)[:20],
		"an address as a string": enc(`{"ver":"8.1.0","adr":"a:1","fgr":"ff","key":"i:s"}`),
	} {
		if got, err := ParseEnrollToken(text); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := ParseEnrollToken(enc(full + "}")); err != nil {
		t.Error("the four fields:", err)
	}
}

// The published vectors of the address filter.
func TestFilterEnrollAddresses(t *testing.T) {
	for _, x := range []struct{ in, want string }{
		{"[::1]:9200,127.0.0.1:9200,192.168.0.1:9201,172.16.254.1:9202,[2001:db8:0:1234:0:567:8:1]:9203",
			"192.168.0.1:9201,172.16.254.1:9202,[2001:db8:0:1234:0:567:8:1]:9203"},
		{"0.0.0.0:9200,172.17.0.2:9200", "172.17.0.2:9200"},
		{"0.0.0.0:9200,[::]:9200,172.17.0.2:9200", "172.17.0.2:9200"},
		{"0.0.0.0:9200,[::1]:9200,127.0.0.1:9200", "127.0.0.1:9200,[::1]:9200"},
		{"127.0.0.1:9200,127.0.0.1:9200,[::1]:9200,[::1]:9200", "127.0.0.1:9200,[::1]:9200"},
		{"128.255.255.255,[::1]:9200,127.0.0.1:9200", "128.255.255.255"},
		{"[2001:db8::1]:9200,es.example:9200,localhost:9200", "es.example:9200,[2001:db8::1]:9200"},
		{"localhost:9200", "localhost:9200"},
		{"", ""},
	} {
		var in []string
		if x.in != "" {
			in = strings.Split(x.in, ",")
		}
		got, err := FilterEnrollAddresses(in)
		if err != nil || strings.Join(got, ",") != x.want {
			t.Errorf("%s: %v, %v, want %s", x.in, got, err, x.want)
		}
	}
	for _, bad := range []string{"not an address:9200", "[::g]:9200", "10.0.0.256:9200", "-x:9200", ":9200"} {
		if got, err := FilterEnrollAddresses([]string{bad}); err == nil {
			t.Errorf("%s: %v", bad, got)
		}
	}
}

func TestFilterEnrollAddressesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(rapid.SampledFrom([]string{"0.0.0.0:1", "[::]:1", "127.0.0.1:1", "127.0.0.2:1", "[::1]:1",
			"10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1", "[2001:db8::2]:1", "a.example:1"})).Draw(t, "addresses")
		out, err := FilterEnrollAddresses(in)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := FilterEnrollAddresses(out)
		if !slices.Equal(out, again) {
			t.Fatalf("filtering %v again gives %v", out, again)
		}
		loopback, six := 0, false
		for i, a := range out {
			if !slices.Contains(in, a) || slices.Contains(out[:i], a) {
				t.Fatalf("%s is new or twice in %v", a, out)
			}
			if ap, err := netip.ParseAddrPort(a); err == nil {
				if ap.Addr().IsUnspecified() || six && ap.Addr().Is4() {
					t.Fatalf("%s stands in %v", a, out)
				}
				six = six || ap.Addr().Is6()
				if ap.Addr().IsLoopback() {
					loopback++
				}
			} else if six {
				t.Fatalf("a name behind an IPv6 address in %v", out)
			}
		}
		if loopback != 0 && loopback != len(out) {
			t.Fatalf("loopback and other addresses in %v", out)
		}
	})
}
