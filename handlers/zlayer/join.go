package zlayer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

// octets is a byte string that is an array of numbers on the wire, as the join family has it. (encoding/json
// would make it Base64.)
type octets []byte

// MarshalJSON writes [1,2,3].
func (o octets) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 4*len(o)+2)
	b = append(b, '[')
	for i, v := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(v), 10)
	}
	return append(b, ']'), nil
}

// joinResponse is ClusterJoinResponse (reference zlayer_join, section 1.3), then our own fields. Optional fields
// are absent, never null.
type joinResponse struct {
	NodeID        string     `json:"node_id"`
	RaftNodeID    uint64     `json:"raft_node_id"`
	OverlayIP     string     `json:"overlay_ip"`
	SliceCIDR     string     `json:"slice_cidr"`
	Peers         []joinPeer `json:"peers"`
	Role          string     `json:"role"`
	NodeJWT       string     `json:"node_jwt,omitempty"`
	WrappedDEK    octets     `json:"wrapped_dek,omitempty"`
	DEKGeneration uint64     `json:"dek_generation,omitempty"`
	JoinSecret    string     `json:"join_secret,omitempty"`
	Warnings      []string   `json:"warnings,omitempty"`

	ClusterID     string `json:"cluster_id"`
	Name          string `json:"name"`
	HTTPCert      string `json:"http_cert,omitempty"` // PEM, the leaf first
	HTTPCA        string `json:"http_ca,omitempty"`   // PEM, during a rotation several
	TransportCert string `json:"transport_cert,omitempty"`
	TransportCA   string `json:"transport_ca,omitempty"`
}

type joinPeer struct {
	NodeID        string `json:"node_id"`
	RaftNodeID    uint64 `json:"raft_node_id"`
	AdvertiseAddr string `json:"advertise_addr"`
	OverlayPort   uint16 `json:"overlay_port"`
	RaftPort      uint16 `json:"raft_port"`
	WGPublicKey   string `json:"wg_public_key"`
	OverlayIP     string `json:"overlay_ip"`

	RaftAddress string `json:"raft_address"`
	APIAddress  string `json:"api_address"`
}

// joinPeers bounds how many peers outside Raft an answer lists, so that a join costs the same however many members
// there are; Raft servers are always all there.
const joinPeers = 32

func (s *service) join(q *handlers.Request) error {
	j, err := parseJoin(q.Request, q.Content)
	if err != nil {
		return err
	}
	ctx := q.Context()
	token, err := s.verifyJoinToken(ctx, j.token)
	if err != nil {
		var known *handlers.Error
		if errors.As(err, &known) && known.Status == http.StatusUnauthorized {
			q.Failed = true
		}
		return err
	}
	in, err := s.joiner(j, token)
	if err != nil {
		return err
	}
	q.Actor.Name = "join token " + token.id
	for {
		out, err := s.admit(q, j, in, token.notes)
		if (errors.Is(err, store.ErrKeyMoved) || errors.Is(err, store.ErrAuthorityMoved)) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		handlers.WriteJSON(q.W, http.StatusOK, out)
		return nil
	}
}

// joiner is what a request and its token ask the store for.
func (s *service) joiner(j *joinRequest, token verified) (in store.Joiner, err error) {
	in = store.Joiner{
		Alive:      s.Cluster.Alive,
		TokenID:    token.id,
		KeyRetired: token.retired,
		Member:     j.member,
		PublicKey:  j.pubkey,
	}
	for _, c := range []struct {
		kind certs.Kind
		csr  []byte
	}{{certs.HTTP, j.httpCSR}, {certs.Transport, j.transportCSR}} {
		if c.csr != nil {
			in.Certificates = append(in.Certificates, store.NewCertificate(c.kind, s.Now()))
		}
	}
	in.CertKey, err = certKeyOf(j.transportCSR)
	return in, err
}

// admit makes the joiner a member and returns the answer. It fails with store.ErrKeyMoved or store.ErrAuthorityMoved
// when what it has prepared was replaced meanwhile. All that is read is read before the write: an error behind it would
// be taken for one before it.
func (s *service) admit(q *handlers.Request, j *joinRequest, in store.Joiner, notes []string) (out joinResponse,
	err error) {
	ctx := q.Context()
	known, err := s.knownToJoiners(ctx)
	if err != nil {
		return out, err
	}
	for i := range in.Certificates {
		in.Certificates[i].Authority = known.trust.Of(in.Certificates[i].Kind).Generation
	}
	var sealed []byte
	if j.pubkey != nil {
		if in.Wrap, sealed, in.DEKGeneration, err = store.WrapFor(s.Store, j.member.Recipient,
			[32]byte(j.pubkey)); err != nil {
			return out, err
		}
	}
	joined, err := s.Store.Members.Join(ctx, q.Actor, in)
	if err != nil {
		return out, err
	}
	s.Cluster.Wake()
	out, err = s.admission(j, known, joined, notes)
	out.WrappedDEK, out.DEKGeneration = sealed, in.DEKGeneration
	return out, err
}

// certKeyOf is the SHA-256 of the public key in a certificate request, "" when there is none.
func certKeyOf(csr []byte) (string, error) {
	if csr == nil {
		return "", nil
	}
	request, err := certs.ParseCSR(csr)
	if err != nil {
		return "", err
	}
	return certs.KeyHash(request.PublicKey)
}

// known is what every joiner is told, and what its answer is signed with.
type known struct {
	secret       string
	jwt          *store.Key
	trust        *store.Trust
	raft, others []store.Member
	peering      string // the name under which other clusters ask for this one
}

func (s *service) knownToJoiners(ctx context.Context) (k known, err error) {
	secret, err := s.Store.Keys.Active(ctx, store.AsLeader, store.KeyJoinSecret)
	if err != nil {
		return k, err
	}
	k.secret = string(secret.Secret)
	if k.jwt, err = s.Store.Keys.Active(ctx, store.AsLeader, store.KeyJWT); err != nil {
		return k, err
	}
	if k.trust, err = s.Store.Authorities.Trust(ctx, store.AsLeader); err != nil {
		return k, err
	}
	datacenter, err := s.Store.Settings.Datacenter(ctx)
	if err != nil {
		return k, err
	}
	k.peering = certs.PeeringName(datacenter, s.ClusterID)
	if k.raft, err = s.Store.Members.Raft(ctx, store.AsLeader); err != nil {
		return k, err
	}
	k.others, err = s.Store.Members.Others(ctx, store.AsLeader, joinPeers+2) // the joiner itself may be among them
	return k, err
}

// admission is the answer to a joiner.
func (s *service) admission(j *joinRequest, k known, joined store.Joined, notes []string) (out joinResponse,
	err error) {
	m := &joined.Member
	out = joinResponse{
		NodeID:     m.ID,
		RaftNodeID: m.NodeID,
		OverlayIP:  m.OverlayIP,
		SliceCIDR:  m.SliceCIDR,
		Role:       "learner",
		JoinSecret: k.secret,
		Warnings:   append(joined.Warnings, notes...),
		ClusterID:  s.ClusterID,
		Name:       m.Name,
	}
	if membership.Roles(s.Store.Servers())[m.NodeID] == store.RoleVoter {
		out.Role = "voter"
	}
	if m.Recipient != "" {
		if out.NodeJWT, err = k.jwt.NodeJWT(s.ClusterID, m, s.Now()); err != nil {
			return out, err
		}
	}
	more := false
	if out.Peers, more = k.peersOf(m.NodeID); more {
		out.Warnings = append(out.Warnings, fmt.Sprintf(
			"peers lists the Raft servers and %d other members; GET /api/v1/cluster/members has them all", joinPeers))
	}
	return out, s.certify(&out, j, k, joined)
}

// peersOf lists the other members to a joiner; more is that there are others outside Raft.
func (k *known) peersOf(joiner uint64) (list []joinPeer, more bool) {
	list = []joinPeer{}
	left := joinPeers
	for _, members := range [][]store.Member{k.raft, k.others} {
		for i := range members {
			p := &members[i]
			switch {
			case p.NodeID == joiner:
			case p.Role != store.RoleNone:
				list = append(list, peerOf(p))
			case left > 0:
				left--
				list = append(list, peerOf(p))
			default:
				more = true
			}
		}
	}
	return list, more
}

// certify signs the leaves that the joiner has asked for.
func (s *service) certify(out *joinResponse, j *joinRequest, k known, joined store.Joined) error {
	for _, record := range joined.Certificates {
		csr, hosts := j.httpCSR, slices.Clone(joined.Hosts)
		if record.Kind == certs.Transport {
			csr, hosts = j.transportCSR, append(hosts, k.peering)
		}
		chain, root, err := record.Issue(k.trust.Of(record.Kind), csr, s.ClusterID, joined.Member.Name, hosts)
		if err != nil {
			return err
		}
		if record.Kind == certs.HTTP {
			out.HTTPCert, out.HTTPCA = chain, root
		} else {
			out.TransportCert, out.TransportCA = chain, root
		}
	}
	return nil
}

func peerOf(m *store.Member) joinPeer {
	p := joinPeer{
		NodeID:        m.ID,
		RaftNodeID:    m.NodeID,
		AdvertiseAddr: m.AdvertiseAddr,
		OverlayPort:   m.OverlayPort,
		WGPublicKey:   m.WGPublicKey,
		OverlayIP:     m.OverlayIP,
		RaftAddress:   m.RaftAddress,
		APIAddress:    m.APIAddress,
	}
	if _, port, err := net.SplitHostPort(m.RaftAddress); err == nil {
		n, _ := strconv.ParseUint(port, 10, 16)
		p.RaftPort = uint16(n)
	}
	return p
}
