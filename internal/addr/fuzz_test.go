package addr

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

// FuzzAddresses feeds addresses, host names, networks and lists of hosts, as callers and members give them.
func FuzzAddresses(f *testing.F) {
	for _, text := range []string{"a:1", "[::1]:65535", "169.254.169.254:80", "[::ffff:169.254.169.254]:80", "0x7f.1:1",
		"a\r\nb:1", "*.example.org", "10.0.0.0/8,2001:db8::/32", "any", "[fe80::1%eth0]:1", "１:1", "a..b:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, check := range map[string]func(string) error{"Check": Check, "CheckPeer": CheckPeer} {
			if check(text) != nil {
				continue
			}
			host, _, err := net.SplitHostPort(text)
			if err != nil || strings.ContainsAny(text, " \r\n\t\x00/@") {
				t.Fatalf("%s accepts %q", name, text)
			}
			if ip, err := netip.ParseAddr(host); err == nil && NeverDialled(ip.Unmap()) != nil {
				t.Fatalf("%s accepts %q, which is never dialled", name, text)
			}
			if again := Canonical(text); check(again) != nil || Canonical(again) != again {
				t.Fatalf("%s: %q becomes %q", name, text, again)
			}
		}
		_ = CheckListen(text)
		if p, err := ParseDialPolicy(text); err == nil && p.Check(netip.MustParseAddr("169.254.169.254")) == nil {
			t.Fatalf("%q allows metadata services", text)
		}
		if l, err := ParseHostList(SplitHostList(text)); err == nil && l.Allows("") {
			t.Fatalf("%q allows the empty name", text)
		}
	})
}
