package consul

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/go-bexpr"

	"muster/certs"
	"muster/handlers"
	"muster/store"
)

const (
	establishWithin = 8 * time.Second
	deletionWithin  = 1500 * time.Millisecond // how long a request waits for the deletion of a peering of the same name
)

// Stream is the state of a peering's stream at the leader; times are zero before the first event.
type Stream struct {
	LastHeartbeat time.Time
	LastReceive   time.Time
	LastSend      time.Time
	Exported      []string // names of members, sorted
}

// peering is the documented object, with its fields in the documented order; the fields after Remote are muster's.
type peering struct {
	ID                  string
	Name                string
	DeletedAt           *time.Time        `json:",omitempty"`
	Meta                map[string]string `json:",omitempty"`
	State               string
	PeerID              string   `json:",omitempty"`
	PeerCAPems          []string `json:",omitempty"`
	PeerServerName      string   `json:",omitempty"`
	PeerServerAddresses []string `json:",omitempty"`
	StreamStatus        streamStatus
	CreateIndex         uint64
	ModifyIndex         uint64
	Remote              struct {
		Partition  string
		Datacenter string
	}

	StatusReason string `json:",omitempty"` // why it is FAILING or TERMINATED
	StatusSince  *time.Time
	Dialer       bool     // this cluster dials the other one
	Dials        []string `json:",omitempty"` // addresses that an operator gave in place of PeerServerAddresses
}

// streamStatus has null for unknown values.
type streamStatus struct {
	ImportedServices []string // names of members of the other cluster
	ExportedServices []string
	LastHeartbeat    *time.Time
	LastReceive      *time.Time
	LastSend         *time.Time
}

func (s *service) peering(q *handlers.Request, p *store.Peering) (peering, error) {
	out := peering{
		ID:                  p.ID,
		Name:                p.Name,
		DeletedAt:           p.DeletedAt,
		Meta:                p.Meta,
		State:               p.State,
		PeerID:              p.PeerID,
		PeerCAPems:          p.CAPems,
		PeerServerName:      p.ServerName,
		PeerServerAddresses: p.ServerAddresses,
		CreateIndex:         p.CreatedRev,
		ModifyIndex:         p.ModifiedRev,
		StatusReason:        p.StatusReason,
		StatusSince:         someTime(p.StatusSince),
		Dialer:              p.Dialer,
	}
	out.Remote.Datacenter = p.RemoteDatacenter
	if p.Dialer && len(p.ManualAddresses) > 0 {
		out.Dials = p.Addresses()
	}
	members, err := s.peerMembers(q, p.ID)
	if err != nil {
		return out, err
	}
	st := &out.StreamStatus
	for i := range members { // by name
		if n := len(st.ImportedServices); n == 0 || st.ImportedServices[n-1] != members[i].Name {
			st.ImportedServices = append(st.ImportedServices, members[i].Name)
		}
	}
	live := s.Peers.Stream(p.ID)
	if len(live.Exported) > 0 {
		st.ExportedServices = live.Exported
	}
	st.LastHeartbeat, st.LastReceive = someTime(live.LastHeartbeat), someTime(live.LastReceive)
	st.LastSend = someTime(live.LastSend)
	return out, nil
}

// peerMembers lists the members that another cluster exports, with the consistency of the preceding read of the
// peering: from the leader's working copy, or stale.
func (s *service) peerMembers(q *handlers.Request, peeringID string) ([]store.PeerMember, error) {
	if q.Stale {
		return s.Peerings.Members(q.Context(), store.Stale, peeringID)
	}
	return s.Peerings.Members(q.Context(), store.AsLeader, peeringID)
}

func someTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// The tables that blocking queries watch.
const (
	unknown = iota
	there
	missing
)

// queryHeaders sets the headers of a read.
func queryHeaders(q *handlers.Request, index uint64) {
	h := q.W.Header()
	h.Set("X-Consul-Index", strconv.FormatUint(max(index, 1), 10))
	if h.Get(headerKnownLeader) == "" { // a stale answer has it already
		h.Set(headerKnownLeader, "true")
		h.Set(headerLastContact, "0")
	}
	h.Set("X-Consul-Query-Backend", "blocking-query")
}

// readPeering serves GET /v1/peering/:name. A blocking query wakes when this peering is created, changed or deleted.
func (s *service) readPeering(q *handlers.Request) error {
	name := peeringNameOf(q.Request)
	was := unknown
	for {
		table := s.Replica.ChangedAt(store.TablePeerings)
		p, err := s.Peerings.ByName(q.Context(), q.Consistency(), name)
		if err != nil {
			return err
		}
		wait := !q.Block.Over()
		if p != nil {
			wait = wait && was != missing && p.ModifiedRev <= q.Block.Index
		} else {
			wait = wait && (was == missing || was == unknown && table <= q.Block.Index)
		}
		switch {
		case wait:
			if was = there; p == nil {
				was = missing
			}
			if err := q.Block.Place(q); err != nil {
				return err
			}
			if err := q.Block.Await(q, table, store.TablePeerings); err != nil {
				return err
			}
		case p == nil:
			return handlers.Fail(http.StatusNotFound, `Peering not found for "`+name+`"`)
		default:
			out, err := s.peering(q, p)
			if err != nil {
				return err
			}
			queryHeaders(q, p.ModifiedRev)
			return writeJSON(q, out)
		}
	}
}

// listPeerings serves GET /v1/peerings. A blocking query wakes when any peering changes.
func (s *service) listPeerings(q *handlers.Request) error {
	filter, err := peeringFilter(q.Request)
	if err != nil {
		return err
	}
	for {
		table := max(s.Replica.ChangedAt(store.TablePeerings), 1)
		peerings, err := s.Peerings.List(q.Context(), q.Consistency())
		if err != nil {
			return err
		}
		if !q.Block.Over() && table <= q.Block.Index {
			if err := q.Block.Place(q); err != nil {
				return err
			}
			if err := q.Block.Await(q, max(q.Block.Index, table), store.TablePeerings); err != nil {
				return err
			}
			continue
		}
		list, err := s.show(q, peerings, filter)
		if err != nil {
			return err
		}
		queryHeaders(q, table)
		return writeJSON(q, list)
	}
}

// show returns the peerings that match a filter; all when it is nil.
func (s *service) show(q *handlers.Request, peerings []store.Peering, filter *bexpr.Evaluator) ([]peering, error) {
	list := []peering{}
	for i := range peerings {
		p, err := s.peering(q, &peerings[i])
		if err != nil {
			return nil, err
		}
		if filter != nil {
			fits, err := filter.Evaluate(p)
			if q.Context().Err() != nil {
				return nil, handlers.Fail(http.StatusServiceUnavailable, "the filter took too long; try again with a simpler one")
			}
			if err != nil {
				return nil, bad("Failed to filter the list: %s", err)
			}
			if !fits {
				continue
			}
		}
		list = append(list, p)
	}
	return list, nil
}

// deletePeering marks the peering for deletion. A peering that does not exist counts as deleted.
func (s *service) deletePeering(q *handlers.Request) error {
	if err := s.Peerings.Delete(q.Context(), q.Actor, peeringNameOf(q.Request)); err != nil {
		return err
	}
	emptyAnswer(q.W)
	return nil
}

// whileDeleting retries f for a moment while a peering of the same name is still being deleted.
func (s *service) whileDeleting(q *handlers.Request, f func() error) error {
	until := time.Now().Add(deletionWithin)
	for {
		table := s.Replica.ChangedAt(store.TablePeerings)
		err := f()
		if !store.ErrPeeringDeleting(err) || time.Now().After(until) {
			return err
		}
		ctx, cancel := context.WithDeadline(q.Context(), until)
		s.Replica.AwaitChange(ctx, table, store.TablePeerings)
		cancel()
	}
}

// generatePeeringToken serves POST /v1/peering/token.
func (s *service) generatePeeringToken(q *handlers.Request) error {
	in, ttl, err := tokenRequest(q)
	if err != nil {
		return err
	}
	ctx := q.Context()
	token, err := s.newToken(ctx, in.ServerExternalAddresses)
	if err != nil {
		return err
	}
	minted, err := s.mintToken(q, store.PeeringToken{
		Name:   in.PeerName,
		Meta:   in.Meta,
		TTL:    s.tokenTTL(q, ttl),
		ID:     certs.NewUUID(),
		Secret: certs.NewUUID(),
		Encode: token.encode,
	})
	if err != nil {
		return err
	}
	return writeJSON(q, struct {
		PeeringToken string
		Warnings     []string `json:",omitempty"`
	}{minted.Text, warnings(in.ServerExternalAddresses)})
}

// newToken returns a token without ID and secret: this cluster's addresses and the CAs to trust.
func (s *service) newToken(ctx context.Context, external []string) (token PeeringToken, err error) {
	roots, err := s.Authorities.Bundle(ctx, certs.Transport)
	if err != nil {
		return token, err
	}
	members, err := s.Members.Raft(ctx, store.AsLeader)
	if err != nil {
		return token, err
	}
	datacenter, err := s.Settings.Datacenter(ctx)
	if err != nil {
		return token, err
	}
	token = PeeringToken{
		CA:                    roots,
		ManualServerAddresses: external,
		ServerAddresses:       store.PeeringAddresses(members),
		ServerName:            certs.PeeringName(datacenter, s.ClusterID),
	}
	token.Remote.Datacenter = datacenter
	return token, nil
}

// encode returns the token's text for a peering and a secret.
func (t PeeringToken) encode(peeringID, secret string) (string, error) {
	t.PeerID, t.EstablishmentSecret = peeringID, secret
	text, err := json.Marshal(t)
	return base64.StdEncoding.EncodeToString(text), err
}

// tokenTTL limits a token's lifetime (0: unlimited) to that of the credential that creates it.
func (s *service) tokenTTL(q *handlers.Request, ttl time.Duration) time.Duration {
	if own := q.Token.ExpiresAt; own != nil {
		if left := own.Sub(s.Now()); ttl == 0 || left < ttl {
			return max(left, time.Second)
		}
	}
	return ttl
}

func (s *service) mintToken(q *handlers.Request, k store.PeeringToken) (minted store.MintedPeering, err error) {
	err = s.whileDeleting(q, func() (err error) {
		minted, err = s.Peerings.MintToken(q.Context(), q.Actor, k, certs.HashSecret(k.Secret))
		return err
	})
	return minted, err
}

// warnings lists addresses that a token may contain, as in the original, but that cannot be dialled.
func warnings(addresses []string) (list []string) {
	for _, a := range addresses {
		if _, err := netip.ParseAddr(a); err == nil {
			list = append(list, a+" has no port: the other cluster will reject this token")
		}
	}
	return list
}
