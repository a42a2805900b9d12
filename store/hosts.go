package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"net"
	"net/netip"
	"slices"

	"muster/internal/addr"
)

// hostsSchema is the schema step that added hosts to members and join tokens.
const hostsSchema = 2

// HostEvidence proves that hosts belong to a member. None of it is the member's own claim.
type HostEvidence struct {
	Remote  string   // the IP address that the request came from
	Dialled []string // hosts that this leader has just dialled and where the member's key answered
	Own     bool     // the leader's own hosts, from its command line
}

// hostGrants are the hosts that a member's certificates may contain, besides loopback and those that the setting
// allows.
type hostGrants struct {
	Token   []string `json:"token,omitempty"`   // allowed by its join token
	Network string   `json:"network,omitempty"` // network that its join token is bound to
	Proven  []string `json:"proven,omitempty"`  // proven by evidence; none is another member's name
}

// hostRule decides which hosts one member may have.
type hostRule struct {
	grants         hostGrants
	token, setting addr.HostList
}

// grantsOf returns the grants of a member. With a schema before grants, a member's own hosts count as granted.
func (v *View) grantsOf(m *Member) (g hostGrants, err error) {
	n, err := v.SchemaVersion()
	if err != nil {
		return g, err
	}
	if n < hostsSchema {
		g.Proven = canonicalHosts(m)
		return g, nil
	}
	var text string
	if known, err := v.get("SELECT hosts FROM members WHERE raft_node_id = ?", []any{int64(m.NodeID)},
		&text); err != nil || !known {
		return g, err
	}
	return g, json.Unmarshal([]byte(text), &g)
}

// setGrants stores a member's grants.
func (t *Tx) setGrants(nodeID uint64, g hostGrants) error {
	n, err := t.SchemaVersion()
	if err != nil || n < hostsSchema {
		return err
	}
	text, err := json.Marshal(g)
	if err != nil {
		return err
	}
	same, err := t.get("SELECT 1 FROM members WHERE raft_node_id = ? AND hosts = ?", []any{int64(nodeID), string(text)},
		new(int))
	if err != nil || same {
		return err
	}
	return t.exec("UPDATE members SET hosts = ? WHERE raft_node_id = ?", string(text), int64(nodeID))
}

// canonicalHosts lists the hosts of a member's addresses without duplicates and loopback.
func canonicalHosts(m *Member) (list []string) {
	for _, h := range m.Hosts() {
		if h = addr.CanonicalHost(h); !addr.Loopback(h) && !slices.Contains(list, h) {
			list = append(list, h)
		}
	}
	return list
}

// isIP reports whether a host is an IP address.
func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// hostRule returns the rule for a member with these grants.
func (v *View) hostRule(g hostGrants) (r hostRule, err error) {
	r.grants = g
	if r.token, err = addr.ParseHostList(g.Token); err != nil {
		return r, err
	}
	if bound, err := addr.ParseHostList([]string{g.Network}); err == nil {
		r.token.Networks = append(r.token.Networks, bound.Networks...)
	}
	r.setting, err = v.certificateHosts()
	return r, err
}

// certificateHosts reads the setting certificates.hosts.
func (v *View) certificateHosts() (addr.HostList, error) {
	var text string
	set, err := v.document(SettingCertificateHosts)
	if err != nil || set.Value == nil {
		return addr.HostList{}, err
	}
	if json.Unmarshal(set.Value, &text) != nil {
		return addr.HostList{}, nil
	}
	list, err := addr.ParseHostList(addr.SplitHostList(text))
	if err != nil { // a newer member may have set a value that this one cannot parse: it allows nothing here
		return addr.HostList{}, nil
	}
	return list, nil
}

// CertificateHosts returns the hosts that the setting certificates.hosts allows.
func (st Settings) CertificateHosts(ctx context.Context, c Consistency) (list addr.HostList, err error) {
	err = st.s.Read(ctx, c, func(v *View) error {
		list, err = v.certificateHosts()
		return err
	})
	return list, err
}

// hostHolder is another member that has a host in an address or as its name.
type hostHolder struct {
	id   uint64
	role Role
	name string
}

func (v *View) hostHolders(host string, except uint64) ([]hostHolder, error) {
	at := net.JoinHostPort(host, "")
	return collect(v, func(rows *sql.Rows) (h hostHolder, err error) {
		err = rows.Scan(&h.id, (*string)(&h.role), &h.name)
		return h, err
	}, `SELECT raft_node_id, raft_role, name FROM members WHERE raft_node_id <> ?1 AND (lower(advertise_addr) = ?2
		OR lower(name) = ?2
		OR lower(substr(raft_address, 1, length(?3))) = ?3 OR lower(substr(api_address, 1, length(?3))) = ?3) ORDER BY
		raft_node_id LIMIT 10`,
		int64(except), host, at)
}

// prove adds the hosts that the evidence proves to a member's grants and drops proven hosts that it no longer has.
func (v *View) prove(m *Member, g hostGrants, e HostEvidence) (hostGrants, error) {
	remote := addr.CanonicalHost(e.Remote)
	var proven []string
	for _, h := range canonicalHosts(m) {
		shown := e.Own || slices.Contains(e.Dialled, h) || isIP(h) && h == remote
		if shown && !isIP(h) && !e.Own && !slices.Contains(g.Proven, h) {
			holders, err := v.hostHolders(h, m.NodeID)
			if err != nil {
				return g, err
			}
			shown = len(holders) == 0
		}
		if shown || slices.Contains(g.Proven, h) {
			proven = append(proven, h)
		}
	}
	g.Proven = proven
	return g, nil
}

// admitHosts checks the hosts of a member that joins or has moved, and returns its grants with proven hosts added. It
// rejects names that are neither allowed nor proven, with strict also addresses. claims reports whether another member
// is alive.
func (t *Tx) admitHosts(m *Member, g hostGrants, e HostEvidence, strict bool,
	claims func(uint64, Role, string) Claim) (hostGrants, error) {
	g, err := t.prove(m, g, e)
	if err != nil {
		return g, err
	}
	r, err := t.hostRule(g)
	if err != nil {
		return g, err
	}
	for _, h := range canonicalHosts(m) {
		if slices.Contains(g.Proven, h) || isIP(h) && !strict {
			continue
		}
		if !r.token.Allows(h) && !r.setting.Allows(h) {
			what := "the name"
			if isIP(h) {
				what = "the address"
			}
			return g, refuse(Forbidden,
				"%s %s is neither allowed nor proven to be this machine's: an operator adds it to the hosts of the join token "+
					"(--host %s) or to the setting %s", what, h, h, SettingCertificateHosts)
		}
		holders, err := t.hostHolders(h, m.NodeID)
		if err != nil {
			return g, err
		}
		for _, o := range holders {
			// A machine may replace a dead member if its join token names the host explicitly.
			if !r.token.Names(h) || claims(o.id, o.role, "") != ClaimDead {
				return g, refuse(Forbidden,
					"the host %s belongs to node %d (%s), and certificates must not have another member's host: remove node "+
						"%d first, "+
						"or give this machine another one with --raft, --api or --advertise", h, o.id, o.name, o.id)
			}
		}
	}
	return g, nil
}

// certHosts splits the hosts of a member into those for its certificates, and those that are neither allowed nor proven
// or that another member has.
func (v *View) certHosts(m *Member, g hostGrants) (hosts, left []string, err error) {
	r, err := v.hostRule(g)
	if err != nil {
		return nil, nil, err
	}
	for _, h := range m.Hosts() {
		h = addr.CanonicalHost(h)
		ok := addr.Loopback(h) || slices.Contains(g.Proven, h) || r.token.Names(h)
		if !ok && (r.token.Allows(h) || r.setting.Allows(h)) {
			holders, err := v.hostHolders(h, m.NodeID)
			if err != nil {
				return nil, nil, err
			}
			ok = len(holders) == 0
		}
		switch {
		case ok && !slices.Contains(hosts, h):
			hosts = append(hosts, h)
		case !ok && !slices.Contains(left, h):
			left = append(left, h)
		}
	}
	return hosts, left, nil
}

// UnprovenHosts lists the hosts of a member's announced or present addresses that are neither allowed nor proven by the
// request's source address. The caller may dial them to prove them.
func (ms Members) UnprovenHosts(ctx context.Context, a Announcement) (left []string, err error) {
	err = ms.s.Read(ctx, AsLeader, func(v *View) error {
		old, err := v.Member(a.NodeID)
		if err != nil || old == nil {
			return err
		}
		g, err := v.grantsOf(old)
		if err != nil {
			return err
		}
		m := old.movedTo(a.RaftAddress, a.APIAddress)
		if g, err = v.prove(&m, g, a.Evidence); err != nil {
			return err
		}
		_, left, err = v.certHosts(&m, g)
		return err
	})
	return left, err
}

// grantRejoined checks the hosts of a member that rejoins. The new token's hosts replace those of the former token.
func (t *Tx) grantRejoined(j Joiner, old, m *Member, token *JoinToken, remote string) (hostGrants, error) {
	g, err := t.grantsOf(old)
	if err != nil {
		return g, err
	}
	if now := token.grants(); len(now.Token) > 0 || now.Network != "" {
		g.Token, g.Network = now.Token, now.Network
	}
	if g, err = t.admitHosts(m, g, HostEvidence{Remote: remote}, len(j.Certificates) > 0, j.claims); err != nil {
		return g, err
	}
	return g, t.setGrants(m.NodeID, g)
}

// grants returns the hosts that a token allows.
func (k *JoinToken) grants() hostGrants {
	return hostGrants{Token: k.Hosts, Network: k.BindCIDR}
}

// grantMoved checks the hosts of a member's new addresses. A member cannot take over a dead member's host by its own
// claim.
func (t *Tx) grantMoved(old, m *Member, e HostEvidence) error {
	g, err := t.grantsOf(old)
	if err != nil {
		return err
	}
	if g, err = t.admitHosts(m, g, e, true, func(uint64, Role, string) Claim { return ClaimAlive }); err != nil {
		return err
	}
	return t.setGrants(m.NodeID, g)
}

// movedTo returns the member with other addresses.
func (m Member) movedTo(raft, api string) Member {
	if host, _, err := net.SplitHostPort(raft); err == nil && raft != m.RaftAddress {
		m.AdvertiseAddr = host
	}
	m.RaftAddress, m.APIAddress = raft, api
	return m
}

// hostsSetting returns a setting that is an addr.HostList; the default is none.
func hostsSetting(name, help string) Setting {
	return Setting{
		Name:    name,
		Default: quote(addr.NoHosts),
		Help:    help,
		Rule:    quote(addr.NoHosts) + " or " + addr.HostListRule + ", separated by commas",
		valid: func(v json.RawMessage) bool {
			var s string
			if json.Unmarshal(v, &s) != nil {
				return false
			}
			_, err := addr.ParseHostList(addr.SplitHostList(s))
			return err == nil
		},
	}
}
