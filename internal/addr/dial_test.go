package addr

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestCheckPeer(t *testing.T) {
	for _, good := range []string{"a:1", "a.b:65535", "a.b.:80", "1.2.3.4:5", "[2001:db8::1]:7000", "[::1]:7000",
		"127.0.0.1:1", "under_score.x:80",
		"peer-1.example.org:7000", "1a:80", "1.example:80", "localhost:7000"} {
		if err := CheckPeer(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a", ":80", "a:", "a:0", "a:65536", "a:-1", "a:+1", "a:080", "a:http", "::1:5",
		"[a]:80", "[1.2.3.4]:80", "a b:80",
		"a\r\nHost: x:80", "a\x00:80", "ä:80", "a..b:80", ".a:80", "-a:80", "a-:80", "a/b:80", "a@b:80", "u:p@h:80", "a?x:80",
		"a#x:80", "*.a:80",
		strings.Repeat("a", 64) + ":80", strings.Repeat("a.", 127) + "aa:80", "0.0.0.0:80", "[::]:80", "10.0.0.256:7000",
		"1:80", "10.1:80", "0x7f.1:80",
		"a.0x7f000001:80", "1.2.3.4.5:80", "01.2.3.4:80", "169.254.169.254:80", "[fe80::1]:80", "[fe80::1%25eth0]:80",
		"[fe80::1%eth0]:80",
		"[::ffff:169.254.169.254]:80", "[64:ff9b::a9fe:a9fe]:80", "[2002:a9fe:a9fe::1]:80", "[::169.254.169.254]:80",
		"224.0.0.1:80", "[ff02::1]:80",
		"255.255.255.255:80", "0.1.2.3:80", "240.0.0.1:80", "100.100.100.200:80", "168.63.129.16:80", "192.0.0.192:80",
		"[fd00:ec2::254]:80",
		"[fd00:ec2::23]:80", "[64:ff9b:1::a9fe:a9fe]:80", "[::ffff:0:169.254.169.254]:80", "[2001::5601:5601]:80",
		"[2001:db8::5efe:169.254.169.254]:80",
		"[2001:db8::200:5efe:6464:64c8]:80"} {
		if CheckPeer(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestPolicies(t *testing.T) {
	for text, ok := range map[string]bool{"any": true, "10.0.0.0/8": true, "10.0.0.0/8, fd00::/8": true,
		"10.1.2.3/8": true, "": false, "Any": false,
		"10.0.0.0": false, "10.0.0.0/33": false, "any,10.0.0.0/8": false, "10.0.0.0/8,": false, "::ffff:10.0.0.0/104": false,
		strings.Repeat("10.0.0.0/8,", 64) + "10.0.0.0/8": false} {
		if _, err := ParseDialPolicy(text); (err == nil) != ok {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	for _, x := range []struct {
		networks string
		loopback bool
		ip       string
		ok       bool
	}{
		{"any", false, "10.1.2.3", true}, {"any", false, "8.8.8.8", true}, {"any", false, "2001:db8::1", true},
		{"any", false, "::ffff:10.1.2.3", true},
		{"any", false, "127.0.0.1", false}, {"any", false, "127.9.9.9", false}, {"any", false, "::1", false},
		{"any", false, "::ffff:127.0.0.1", false},
		{"any", false, "64:ff9b::7f00:1", false}, {"any", false, "64:ff9b:1::7f00:1", false},
		{"any", false, "::ffff:0:127.0.0.1", false}, {"any", false, "2001:0:1::80ff:fffe", false},
		{"any", false, "2001:db8::5efe:127.0.0.1", false},
		{"any", false, "2001:db8::5efe:10.0.0.1", true}, {"any", false, "2002:7f00:1::", false},
		{"any", false, "::127.0.0.1", false},
		{"any", true, "127.0.0.1", true}, {"any", true, "::1", true}, {"10.0.0.0/8", true, "127.0.0.1", true},
		{"any", true, "169.254.169.254", false}, {"any", true, "169.254.1.1", false}, {"any", true, "fe80::1", false},
		{"any", true, "0.0.0.0", false},
		{"any", true, "::", false}, {"any", true, "::ffff:0.0.0.0", false}, {"any", true, "64:ff9b::a9fe:a9fe", false},
		{"any", true, "fd00:ec2::254", false},
		{"169.254.0.0/16", false, "169.254.169.254", false}, {"127.0.0.0/8", false, "127.0.0.1", false},
		{"10.0.0.0/8,192.168.0.0/16", false, "192.168.3.4", true}, {"10.0.0.0/8", false, "11.0.0.1", false},
		{"10.0.0.0/8", false, "::ffff:10.0.0.1", true},
		{"10.0.0.0/8", false, "fd00::1", false}, {"fd00::/8", false, "fd00::1", true},
	} {
		p, err := ParseDialPolicy(x.networks)
		if err != nil {
			t.Fatal(err)
		}
		p.Loopback = x.loopback
		if err := p.Check(netip.MustParseAddr(x.ip)); (err == nil) != x.ok {
			t.Errorf("%s, on loopback %t: %s: %v", x.networks, x.loopback, x.ip, err)
		}
		if err := p.CheckLiteral(net.JoinHostPort(x.ip, "80")); (err == nil) != x.ok {
			t.Errorf("%s, on loopback %t: %s with a port: %v", x.networks, x.loopback, x.ip, err)
		}
	}
	if (DialPolicy{}).Check(netip.MustParseAddr("10.0.0.1")) == nil {
		t.Error("the zero policy allows something")
	}
}

func TestOnLoopback(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1:7000": true, "127.3.2.1:1": true, "[::1]:7000": true,
		"localhost:1": true, "10.0.0.1:7000": false,
		"example.org:1": false, "": false, "127.0.0.1.example.org:1": false} {
		if got := OnLoopback(address); got != want {
			t.Errorf("%q: %t", address, got)
		}
	}
}

// A name is judged by what it resolves to when it is dialled: no connection is made to what is not allowed.
func TestControlSeesResolvedAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, loopback := range []bool{false, true} {
		p := DialPolicy{Any: true, Loopback: loopback}
		d := net.Dialer{Control: p.Control, Timeout: 5 * time.Second}
		conn, err := d.Dial("tcp", "localhost:"+port)
		if (err == nil) != loopback {
			t.Errorf("on loopback %t: %v", loopback, err)
		}
		if err == nil {
			conn.Close()
		} else if !strings.Contains(err.Error(), "loopback is dialled only by") {
			t.Errorf("%v", err)
		}
	}
}
