package zlayer

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"muster/certs"
	"muster/handlers"
	"muster/store"
)

// octets is a byte string that is an array of numbers on the wire. (encoding/json would use Base64.)
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

// joinResponse is ClusterJoinResponse (reference zlayer_join, section 1.3) with muster's additional fields. Optional
// fields are absent, never null.
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
	HTTPCA        string `json:"http_ca,omitempty"`   // PEM; several during a rotation
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

// joinPeers bounds the members outside Raft that an answer lists, so that the cost of a join does not grow with the
// cluster. All Raft servers are listed.
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
	q.Actor.Name = "join token " + token.id
	out, err := s.Admissions.Admit(ctx, q.Actor, s.applicant(j, token), joinPeers+2) // the joiner itself may be among them
	if out.Member.NodeID != 0 {
		s.Cluster.Wake()
	}
	if err != nil {
		return err
	}
	handlers.WriteJSON(q.W, http.StatusOK, s.response(&out, token.notes))
	return nil
}

// applicant returns the join that a request and its token ask the store for.
func (s *service) applicant(j *joinRequest, token verified) store.Applicant {
	return store.Applicant{
		Joiner: store.Joiner{
			Alive:      s.Cluster.Alive,
			TokenID:    token.id,
			KeyRetired: token.retired,
			Member:     j.member,
			PublicKey:  j.pubkey,
		},
		HTTPCSR:      j.httpCSR,
		TransportCSR: j.transportCSR,
	}
}

// response returns the answer for an admitted machine.
func (s *service) response(a *store.Admission, notes []string) joinResponse {
	m := &a.Member
	out := joinResponse{
		NodeID:        m.ID,
		RaftNodeID:    m.NodeID,
		OverlayIP:     m.OverlayIP,
		SliceCIDR:     m.SliceCIDR,
		Role:          "learner",
		NodeJWT:       a.NodeJWT,
		WrappedDEK:    a.WrappedDEK,
		DEKGeneration: a.DEKGeneration,
		JoinSecret:    a.JoinSecret,
		Warnings:      append(a.Warnings, notes...),
		ClusterID:     s.ClusterID,
		Name:          m.Name,
	}
	if a.Voter {
		out.Role = "voter"
	}
	more := false
	if out.Peers, more = peersOf(a); more {
		out.Warnings = append(out.Warnings, fmt.Sprintf(
			"peers lists the Raft servers and %d other members; GET /api/v1/cluster/members has them all", joinPeers))
	}
	for _, leaf := range a.Leaves {
		if leaf.Kind == certs.HTTP {
			out.HTTPCert, out.HTTPCA = leaf.Chain, leaf.Root
		} else {
			out.TransportCert, out.TransportCA = leaf.Chain, leaf.Root
		}
	}
	return out
}

// peersOf lists the other members for a joiner; more reports that there are further members outside Raft.
func peersOf(a *store.Admission) (list []joinPeer, more bool) {
	list = []joinPeer{}
	left := joinPeers
	for _, members := range [][]store.Member{a.Raft, a.Others} {
		for i := range members {
			p := &members[i]
			switch {
			case p.NodeID == a.Member.NodeID:
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
