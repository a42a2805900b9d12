package addr

import (
	"errors"
	"strings"
	"testing"
)

var long = strings.Repeat("a", 64)

// TestCheck lists what others can dial and what they cannot, and which of it may be listened on.
func TestCheck(t *testing.T) {
	const dial, listen, form = 1, 2, 4 // form: not an address at all
	for s, want := range map[string]int{
		"127.0.0.1:5000":                  dial | listen,
		"192.0.2.3:1":                     dial | listen,
		"10.0.0.255:65535":                dial | listen,
		"[::1]:7000":                      dial | listen,
		"[2001:db8::1]:7000":              dial | listen,
		"[::ffff:192.0.2.1]:7000":         dial | listen,
		"localhost:7000":                  dial | listen,
		"node-1.example.com.:7000":        dial | listen,
		"my_host:7000":                    dial | listen,
		"3com:7000":                       dial | listen,
		"1.2.3.4.example:7000":            dial | listen,
		"0.0.0.0:7000":                    listen,
		"[::]:7000":                       listen,
		"[::ffff:0.0.0.0]:7000":           listen,
		":7000":                           listen | form,
		"[fe80::1%eth0]:7000":             listen,
		"169.254.1.1:7000":                listen,
		"[fe80::1]:7000":                  0,
		"[2001:db8::1%eth0]:7000":         0,
		"[::%eth0]:7000":                  0,
		"224.0.0.1:7000":                  0,
		"[ff02::1]:7000":                  0,
		"[ff02::1%eth0]:7000":             0,
		"255.255.255.255:7000":            0,
		"[::ffff:224.0.0.1]:7000":         0,
		"100.100.100.200:80":              listen,
		"168.63.129.16:80":                listen,
		"[fd00:ec2::254]:80":              listen,
		"[64:ff9b::a9fe:a9fe]:80":         listen,
		"[::ffff:0:169.254.169.254]:80":   listen,
		"240.0.0.1:80":                    listen,
		"10.0.0.256:7000":                 form,
		"10.0.0:7000":                     form,
		"0x7f.1:7000":                     form,
		"2130706433:7000":                 form,
		"host:0":                          form,
		"host:00":                         form,
		"host:65536":                      form,
		"host:+1":                         form,
		"host:-1":                         form,
		"host:07000":                      form,
		"host:https":                      form,
		"host:":                           form,
		"host":                            form,
		"":                                form,
		"::1:80":                          form,
		"user@host:7000":                  form,
		"user:pw@host:7000":               form,
		"https://host:7000":               form,
		"host:7000/path":                  form,
		"host/path:7000":                  form,
		"ho st:7000":                      form,
		" host:7000":                      form,
		"host:7000\n":                     form,
		"ho\x00st:7000":                   form,
		"-host:7000":                      form,
		"host-:7000":                      form,
		"a..b:7000":                       form,
		".:7000":                          form,
		"höst:7000":                       form,
		long + ":7000":                    form,
		strings.Repeat("a.", 127) + "a:1": form,
	} {
		err := Check(s)
		if (err == nil) != (want&dial != 0) || err != nil && errors.Is(err, ErrForm) != (want&form != 0) {
			t.Errorf("Check(%q) = %v", s, err)
		}
		if err := CheckListen(s); (err == nil) != (want&listen != 0) {
			t.Errorf("CheckListen(%q) = %v", s, err)
		}
	}
	if err := Check("0.1.2.3:7000"); err == nil || CheckHost("0.0.0.0") == nil || CheckHost("") == nil {
		t.Error("an address of no network is taken")
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"Node-1.Example.:7000": "node-1.example:7000", "[0:0::1]:7000": "[::1]:7000",
		"[::ffff:10.0.0.1]:7": "10.0.0.1:7", "10.0.0.1:7000": "10.0.0.1:7000", "nonsense": "nonsense",
	} {
		if got := Canonical(in); got != want {
			t.Errorf("Canonical(%q) = %q, want %q", in, got, want)
		}
	}
	for host, want := range map[string]bool{"": true, "0.0.0.0": true, "::": true, "::ffff:0.0.0.0": true, "::1": false,
		"host": false} {
		if Wildcard(host) != want {
			t.Errorf("Wildcard(%q) = %v", host, !want)
		}
	}
}
