package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/big"
	"net/netip"
	"strconv"
	"time"
)

// overlayQuarantine is how long a released address is not reused, so that other machines' routes and caches of its last
// holder expire.
const overlayQuarantine = time.Hour

// overlayPlan is the division of the cluster's CIDR (reference zlayer_join, section 4.1).
type overlayPlan struct {
	cidr      netip.Prefix
	sliceBits int
}

func (v *View) overlayPlan() (p overlayPlan, err error) {
	cidr, err := v.setting(settingOverlayCIDR)
	if err != nil {
		return p, err
	}
	bits, err := v.setting(settingSliceBits)
	if err != nil {
		return p, err
	}
	if p.cidr, err = netip.ParsePrefix(cidr); err != nil {
		return p, err
	}
	p.sliceBits, err = strconv.Atoi(bits)
	return p, err
}

// OverlayCIDR returns the addresses of the overlay network.
func (st Settings) OverlayCIDR(ctx context.Context, c Consistency) (cidr string, err error) {
	err = st.s.Read(ctx, c, func(v *View) error {
		cidr, err = v.setting(settingOverlayCIDR)
		return err
	})
	return cidr, err
}

// hosts returns the number of host addresses, numbered from 1; IPv4's broadcast address is excluded.
func (p overlayPlan) hosts() uint64 {
	free := p.cidr.Addr().BitLen() - p.cidr.Bits()
	if free >= 62 {
		return 1 << 62
	}
	n := uint64(1)<<free - 1
	if p.cidr.Addr().Is4() && n > 0 {
		n--
	}
	return n
}

func (p overlayPlan) slices() uint64 { return 1 << min(p.sliceBits-p.cidr.Bits(), 62) }

func (p overlayPlan) host(slot uint64) netip.Addr {
	return offset(p.cidr.Masked().Addr(), slot, 0)
}

func (p overlayPlan) slice(slot uint64) netip.Prefix {
	base := p.cidr.Masked().Addr()
	return netip.PrefixFrom(offset(base, slot, base.BitLen()-p.sliceBits), p.sliceBits)
}

// offset returns base + (n << shift).
func offset(base netip.Addr, n uint64, shift int) netip.Addr {
	if base.Is4() {
		a := base.As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(n<<shift))
		return netip.AddrFrom4(a)
	}
	a := base.As16()
	sum := new(big.Int).Lsh(new(big.Int).SetUint64(n), uint(shift))
	sum.Add(sum, new(big.Int).SetBytes(a[:]))
	sum.FillBytes(a[:])
	return netip.AddrFrom16(a)
}

// sliceStart returns the documented start of the search: FNV-1a of the decimal node id.
func sliceStart(nodeID, slices uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d", nodeID)
	return h.Sum64() % slices
}

// CheckOverlay validates the division of a new cluster's CIDR.
func CheckOverlay(cidr string, sliceBits int) error {
	p, err := netip.ParsePrefix(cidr)
	switch {
	case err != nil:
		return refuse(Invalid, "overlay CIDR %q is not a prefix such as 10.200.0.0/16", cidr)
	case p != p.Masked():
		return refuse(Invalid, "overlay CIDR %s has host bits set; did you mean %s?", p, p.Masked())
	case p.Addr().BitLen()-p.Bits() < 2:
		return refuse(Invalid, "overlay CIDR %s has no room for members", p)
	case sliceBits < p.Bits() || sliceBits > p.Addr().BitLen():
		return refuse(Invalid, "overlay slice length /%d must be between /%d and /%d", sliceBits, p.Bits(), p.Addr().BitLen())
	}
	return nil
}

// allocateOverlay gives a member the lowest free host of the cluster's CIDR and a slice near its hash. Its cost does
// not depend on the number of members: hosts above the high-water mark are free, and released ones below it are
// indexed. (Without INDEXED BY, SQLite would scan the primary key, which is ordered by slot.)
func (t *Tx) allocateOverlay(nodeID uint64) (ip, slice string, err error) {
	p, err := t.overlayPlan()
	if err != nil {
		return "", "", err
	}
	host, err := t.freeHost(p)
	if err != nil {
		return "", "", err
	}
	if err := t.take("host", host, nodeID); err != nil {
		return "", "", err
	}
	slot, err := t.freeSlice(p, nodeID)
	if err != nil {
		return "", "", err
	}
	if err := t.take("slice", slot, nodeID); err != nil {
		return "", "", err
	}
	return p.host(host).String(), p.slice(slot).String(), nil
}

func (t *Tx) freeHost(p overlayPlan) (host uint64, err error) {
	before := rfc3339(t.Now.Add(-overlayQuarantine))
	ok, err := t.get("SELECT slot FROM overlay_allocations INDEXED BY overlay_released "+
		"WHERE kind = 'host' AND raft_node_id IS NULL AND released_at <= ? ORDER BY slot LIMIT 1",
		[]any{before}, &host)
	if ok || err != nil {
		return host, err
	}
	if _, err := t.get("SELECT value + 1 FROM sequences WHERE name = 'overlay_host'", nil, &host); err != nil {
		return 0, err
	}
	if host > p.hosts() {
		return 0, refuse(Exhausted, "No available overlay IPs in CIDR range")
	}
	return host, t.setSequence("overlay_host", host)
}

// freeSlice probes linearly from the member's hash, as documented. The sequence overlay_slices counts the slots that
// were ever used: while it is below the number of slots the probe finds a free one.
func (t *Tx) freeSlice(p overlayPlan, nodeID uint64) (slot uint64, err error) {
	n := p.slices()
	before := rfc3339(t.Now.Add(-overlayQuarantine))
	var used uint64
	if _, err := t.get("SELECT value FROM sequences WHERE name = 'overlay_slices'", nil, &used); err != nil {
		return 0, err
	}
	if used >= n {
		ok, err := t.get("SELECT slot FROM overlay_allocations INDEXED BY overlay_released "+
			"WHERE kind = 'slice' AND raft_node_id IS NULL AND released_at <= ? ORDER BY slot LIMIT 1",
			[]any{before}, &slot)
		if err == nil && !ok {
			err = refuse(Exhausted, "slice allocation failed: all %d slices of the overlay CIDR are taken", n)
		}
		return slot, err
	}
	for slot = sliceStart(nodeID, n); ; slot = (slot + 1) % n {
		free := false
		known, err := t.get("SELECT raft_node_id IS NULL AND released_at <= ? FROM overlay_allocations "+
			"WHERE kind = 'slice' AND slot = ?",
			[]any{before, int64(slot)}, &free)
		switch {
		case err != nil:
			return 0, err
		case !known:
			return slot, t.setSequence("overlay_slices", used+1)
		case free:
			return slot, nil
		}
	}
}

func (t *Tx) take(kind string, slot, nodeID uint64) error {
	n, err := t.execCount("UPDATE overlay_allocations SET raft_node_id = ?, released_at = NULL "+
		"WHERE kind = ? AND slot = ?", nodeID, kind, slot)
	if err != nil || n > 0 {
		return err
	}
	return t.exec("INSERT INTO overlay_allocations (kind, slot, raft_node_id) VALUES (?, ?, ?)", kind, slot, nodeID)
}
