package peering

import (
	"testing"

	"muster/certs"
)

// identities counts the messages about identities.
func identities(queue []frame) (n int) {
	for i := range queue {
		if queue[i].Identity != nil {
			n++
		}
	}
	return n
}

// TestIdentityIsNegotiated: the other side is told of identities when it has shown that it understands that, and then
// once. What shows it is nothing that an older cluster would refuse.
func TestIdentityIsNegotiated(t *testing.T) {
	s := &stream{term: &term{}, status: &streamStatus{}, tells: make(chan struct{}, 1)}
	x := exported{sequence: 1, roots: []string{"a"}, domain: certs.NewUUID(), bundle: "{}"}
	var sent exported
	if n := identities(s.news(&sent, x, nil)); n != 0 {
		t.Errorf("%d messages to a cluster that may not know them", n)
	}
	s.identity.Store(true)
	if n := identities(s.news(&sent, x, nil)); n != 1 {
		t.Errorf("%d messages to one that does", n)
	}
	if n := identities(s.news(&sent, x, nil)); n != 0 {
		t.Errorf("%d messages once more", n)
	}
	x.bundle = `{"keys":[]}`
	if n := identities(s.news(&sent, x, nil)); n != 1 {
		t.Errorf("%d messages after a change", n)
	}
	for text, takes := range map[string]bool{"dc1": false, "dc1 identity": true, "identity-dc": false, "": false,
		"dc1 later identity": true} {
		if f := (&openedFrame{text}); f.takes(takesIdentity) != takes {
			t.Errorf("%q is understood as %v", text, !takes)
		}
	}
}

// TestHostileIdentities: a bundle that is none ends the stream.
func TestHostileIdentities(t *testing.T) {
	s := &stream{status: &streamStatus{}, tells: make(chan struct{}, 1)}
	for _, f := range []identityFrame{
		{}, {certs.NewUUID(), ""}, {certs.NewUUID(), `{"keys":[]}`}, {certs.NewUUID(), "[]"}, {"example.org", `{"keys":[]}`},
		{"../x", `{}`}, {certs.NewUUID(), string(make([]byte, 70<<10))},
	} {
		if err := s.takeIdentity(&f); err == nil {
			t.Errorf("%.60v is taken", f)
		}
	}
	if s.identity.Load() {
		t.Error("it counts as somebody that understands them")
	}
}
