package store

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// fnv1a is the hash of the reference, written out a second time.
func fnv1a(key string) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range []byte(key) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// allocate gives member id its addresses in a transaction of its own.
func (b *bench) allocate(id uint64) (ip, slice string, err error) {
	b.t.Helper()
	_, err = b.write(func(tx *Tx) (err error) {
		ip, slice, err = tx.allocateOverlay(id)
		return err
	})
	return ip, slice, err
}

// release is what the removal of a member does to its addresses.
func (b *bench) release(id uint64) {
	b.t.Helper()
	b.exec("UPDATE overlay_allocations SET raft_node_id = NULL, released_at = ? WHERE raft_node_id = ?", rfc3339(b.now),
		int64(id))
}

// Vectors of the reference, section 2.3, and the order of hosts in section 4.1. The founder has key 1.
func TestOverlayVectors(t *testing.T) {
	t.Parallel()
	b := foundedBench(t, "10.200.0.0/16", 28)
	for id, want := range map[uint64]string{1: "10.200.175.192/28", 2: "10.200.1.80/28", 3: "10.200.230.32/28",
		4: "10.200.94.48/28", 5: "10.200.67.0/28"} {
		p := overlayPlan{netip.MustParsePrefix("10.200.0.0/16"), 28}
		if got := p.slice(sliceStart(id, p.slices())); got.String() != want {
			t.Errorf("key %d: %s, want %s", id, got, want)
		}
		if p.slices() != 4096 || p.hosts() != 65534 {
			t.Errorf("%d slices, %d hosts", p.slices(), p.hosts())
		}
	}
	m, err := b.view().Member(1)
	if err != nil || m == nil || m.OverlayIP != "10.200.0.1" || m.SliceCIDR != "10.200.175.192/28" {
		t.Fatalf("founder: %+v, %v", m, err)
	}
	for id, want := range []string{2: "10.200.1.80/28", 3: "10.200.230.32/28", 4: "10.200.94.48/28", 5: "10.200.67.0/28"} {
		if want == "" {
			continue
		}
		ip, slice, err := b.allocate(uint64(id))
		if err != nil || slice != want || ip != fmt.Sprintf("10.200.0.%d", id) {
			t.Errorf("node %d: %s %s %v", id, ip, slice, err)
		}
	}
}

func TestOverlayIPv6(t *testing.T) {
	t.Parallel()
	b := foundedBench(t, "fd00:200::/48", 64)
	for id := uint64(1); id <= 20; id++ {
		ip, slice := "", ""
		if id == 1 {
			m, err := b.view().Member(1)
			if err != nil {
				t.Fatal(err)
			}
			ip, slice = m.OverlayIP, m.SliceCIDR
		} else {
			var err error
			if ip, slice, err = b.allocate(id); err != nil {
				t.Fatal(err)
			}
		}
		wantIP := netip.MustParseAddr(fmt.Sprintf("fd00:200::%x", id)).String()
		want := netip.MustParsePrefix(fmt.Sprintf("fd00:200:0:%x::/64", fnv1a(fmt.Sprint(id))%65536)).String()
		if ip != wantIP || slice != want {
			t.Errorf("node %d: %s %s, want %s %s", id, ip, slice, wantIP, want)
		}
	}
	for _, c := range []struct {
		cidr          string
		bits          int
		hosts, slices uint64
		last          string // slice
	}{
		{"fd00::/8", 128, 1 << 62, 1 << 62, "fd00::3fff:ffff:ffff:ffff/128"},
		{"fd00:200::/48", 128, 1 << 62, 1 << 62, "fd00:200::3fff:ffff:ffff:ffff/128"},
		{"2001:db8::/126", 127, 3, 2, "2001:db8::2/127"},
		{"10.0.0.0/8", 8, 1<<24 - 2, 1, "10.0.0.0/8"},
		{"0.0.0.0/0", 32, 1<<32 - 2, 1 << 32, "255.255.255.255/32"},
		{"192.168.7.0/30", 32, 2, 4, "192.168.7.3/32"},
	} {
		p := overlayPlan{netip.MustParsePrefix(c.cidr), c.bits}
		if p.hosts() != c.hosts || p.slices() != c.slices {
			t.Errorf("%s /%d: %d hosts, %d slices", c.cidr, c.bits, p.hosts(), p.slices())
			continue
		}
		if got := p.slice(c.slices - 1).String(); got != c.last {
			t.Errorf("%s /%d: last slice %s, want %s", c.cidr, c.bits, got, c.last)
		}
		if last := p.host(c.hosts); !p.cidr.Contains(last) {
			t.Errorf("%s: last host %s is outside", c.cidr, last)
		}
	}
}

func TestCheckOverlay(t *testing.T) {
	for _, c := range []struct {
		cidr string
		bits int
		ok   bool
	}{
		{"10.200.0.0/16", 28, true}, {"fd00:200::/48", 64, true}, {"10.0.0.0/30", 32, true}, {"10.0.0.0/30", 30, true},
		{"", 28, false}, {"10.200.0.0", 28, false}, {"10.200.0.1/16", 28, false}, {"10.0.0.0/31", 32, false},
		{"10.0.0.0/32", 32, false},
		{"10.200.0.0/16", 15, false}, {"10.200.0.0/16", 33, false}, {"fd00::/64", 129, false}, {"fd00::1/64", 80, false},
		{"10.200.0.0/16", -1, false},
	} {
		err := CheckOverlay(c.cidr, c.bits)
		var refusal *Refusal
		if c.ok != (err == nil) || err != nil && (!errors.As(err, &refusal) || refusal.Code != Invalid) {
			t.Errorf("%s /%d: %v", c.cidr, c.bits, err)
		}
	}
}

// When there is no room, a join is refused with the documented words and leaves nothing behind, token included.
func TestOverlayExhausted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, cidr string
		bits, room int
		want       string
	}{
		{"hosts of IPv4", "10.9.0.0/29", 32, 6, "No available overlay IPs in CIDR range"},
		{"hosts of IPv6", "fd00::/126", 128, 3, "No available overlay IPs in CIDR range"},
		{"slices", "10.9.0.0/24", 26, 4, "slice allocation failed: all 4 slices of the overlay CIDR are taken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := foundedBench(t, c.cidr, c.bits)
			b.exec("INSERT INTO join_tokens (id, format, mode, max_uses, created_by, created_at, expires_at, created_rev, " +
				"modified_rev) VALUES ('t', 'muster', '', 100, '', '', '2999-01-01T00:00:00Z', 2, 2)")
			join := func() (out Joined, err error) {
				_, err = b.write(func(tx *Tx) error {
					out, err = tx.join(Joiner{TokenID: "t", Member: Member{Mode: ModeFull, Recipient: uuid.NewString()}},
						uuid.NewString(), Actor{})
					return err
				})
				return out, err
			}
			ips, slices := map[string]bool{}, map[string]bool{}
			for i := 2; i <= c.room; i++ {
				j, err := join()
				if err != nil {
					t.Fatalf("member %d of %d: %v", i, c.room, err)
				}
				if m := j.Member; ips[m.OverlayIP] || slices[m.SliceCIDR] || m.NodeID != uint64(i) {
					t.Errorf("member %+v", m)
				}
				ips[j.Member.OverlayIP], slices[j.Member.SliceCIDR] = true, true
			}
			before := contents(t, b.view())
			var refusal *Refusal
			for range 3 {
				if j, err := join(); !errors.As(err, &refusal) || refusal.Code != Exhausted || refusal.Message != c.want {
					t.Fatalf("one too many: %+v, %v", j.Member, err)
				}
			}
			if err := difference(before, contents(t, b.view())); err != nil {
				t.Errorf("a refused join leaves: %v", err)
			}
			// One that leaves makes room after the quarantine; the id is the next one, whatever was refused.
			b.release(2)
			b.now = b.now.Add(overlayQuarantine - time.Second)
			if j, err := join(); !errors.As(err, &refusal) {
				t.Errorf("within the quarantine: %+v, %v", j.Member, err)
			}
			b.now = b.now.Add(time.Second)
			if j, err := join(); err != nil || j.Member.NodeID != uint64(c.room)+1 {
				t.Errorf("after the quarantine: %+v, %v", j.Member, err)
			}
		})
	}
}

// What was released is kept back for the quarantine, and then the lowest goes first.
func TestOverlayQuarantine(t *testing.T) {
	t.Parallel()
	b := foundedBench(t, "10.200.0.0/16", 28)
	alloc := func(id uint64, want string) {
		t.Helper()
		if ip, _, err := b.allocate(id); err != nil || ip != want {
			t.Errorf("node %d: %s %v, want %s", id, ip, err, want)
		}
	}
	alloc(2, "10.200.0.2")
	alloc(3, "10.200.0.3")
	alloc(4, "10.200.0.4")
	b.release(3)
	b.now = b.now.Add(time.Minute)
	b.release(2)
	alloc(5, "10.200.0.5")
	b.now = b.now.Add(overlayQuarantine - time.Minute - time.Second)
	alloc(6, "10.200.0.6")
	b.now = b.now.Add(time.Second) // 3 is an hour old, 2 a minute less
	alloc(7, "10.200.0.3")
	alloc(8, "10.200.0.7")
	b.now = b.now.Add(time.Minute)
	alloc(9, "10.200.0.2")
	alloc(10, "10.200.0.8")
	// The slice of a key is its own again only after the quarantine, too.
	first := overlayPlan{netip.MustParsePrefix("10.200.0.0/16"), 28}.slice(sliceStart(100, 4096))
	_, slice, err := b.allocate(100)
	if err != nil || slice != first.String() {
		t.Fatalf("%s %v, want %s", slice, err, first)
	}
	b.release(100)
	if _, slice, err = b.allocate(100); err != nil || slice == first.String() {
		t.Errorf("within the quarantine: %s %v", slice, err)
	}
	b.release(100)
	b.now = b.now.Add(overlayQuarantine)
	if _, slice, err = b.allocate(100); err != nil || slice != first.String() {
		t.Errorf("after the quarantine: %s %v, want %s", slice, err, first)
	}
}

// Against a model that knows every slot: the lowest free host, the first free slice from the hash on, never one
// that is held or in quarantine, and refusals exactly when there is none.
func TestOverlayModel(t *testing.T) {
	t.Parallel()
	type slot struct {
		holder   uint64
		released time.Time
	}
	const hosts, slices = 14, 8 // of 10.1.2.0/28 in /31
	p := overlayPlan{netip.MustParsePrefix("10.1.2.0/28"), 31}
	b := foundedBench(t, p.cidr.String(), p.sliceBits)
	start := b.now
	refused, reused := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		b.now = start
		b.exec("DELETE FROM overlay_allocations")
		b.exec("UPDATE sequences SET value = 0 WHERE name LIKE 'overlay_%'")
		host, slice := map[uint64]slot{}, map[uint64]slot{}
		free := func(m map[uint64]slot, n uint64) bool {
			s, ever := m[n]
			return !ever || s.holder == 0 && b.now.Sub(s.released) >= overlayQuarantine
		}
		members := []uint64{}
		next := uint64(1)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"join", "join", "join", "leave", "wait"}).Draw(rt, "step") {
			case "wait":
				b.now = b.now.Add(time.Duration(rapid.IntRange(1, 70).Draw(rt, "minutes")) * time.Minute)
			case "leave":
				if len(members) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(members)-1).Draw(rt, "member")
				b.release(members[i])
				for _, m := range []map[uint64]slot{host, slice} {
					for n, s := range m {
						if s.holder == members[i] {
							m[n] = slot{0, b.now}
						}
					}
				}
				members = append(members[:i], members[i+1:]...)
			case "join":
				id := next
				next++
				wantHost, wantSlice := uint64(0), int64(-1)
				for n := uint64(1); n <= hosts && wantHost == 0; n++ {
					if free(host, n) {
						wantHost = n
					}
				}
				for i := uint64(0); i < slices && wantSlice < 0; i++ {
					if n := (fnv1a(fmt.Sprint(id)) + i) % slices; free(slice, n) {
						wantSlice = int64(n)
					}
				}
				ip, cidr, err := b.allocate(id)
				if wantHost == 0 || wantSlice < 0 {
					var refusal *Refusal
					if !errors.As(err, &refusal) || refusal.Code != Exhausted {
						rt.Fatalf("no room, and node %d got %s %s %v", id, ip, cidr, err)
					}
					refused++
					continue
				}
				if err != nil || ip != p.host(wantHost).String() {
					rt.Fatalf("node %d got host %s (%v), want %s", id, ip, err, p.host(wantHost))
				}
				got := netip.MustParsePrefix(cidr)
				n := uint64(got.Addr().As4()[3]) / 2
				if !free(slice, n) {
					rt.Fatalf("node %d got slice %s, which is held or in quarantine", id, cidr)
				}
				if len(slice) < slices && int64(n) != wantSlice { // once all have been used, any free one will do
					rt.Fatalf("node %d got slice %s, want %s", id, cidr, p.slice(uint64(wantSlice)))
				}
				if _, ever := slice[n]; ever {
					reused++
				}
				host[wantHost], slice[n] = slot{holder: id}, slot{holder: id}
				members = append(members, id)
			}
		}
	})
	if refused == 0 || reused == 0 {
		t.Errorf("%d refusals and %d reused slices: the test proves nothing", refused, reused)
	}
}
