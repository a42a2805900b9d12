package workload

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"

	"muster/certs"
	"muster/store"
)

// Signer is the leader's part: it signs the registered identities of members.
type Signer struct {
	Store     *store.Store
	ClusterID string

	mu     sync.Mutex
	refuse map[uint64]*rate.Limiter // audit rows, by member
}

// errRequest: no member sends such a request.
var errRequest = errors.New("the request is not one for identities of workloads")

// Invalid reports whether an error means that the request itself is wrong.
func Invalid(err error) bool { return errors.Is(err, errRequest) || errors.Is(err, errAudience) }

// identity returns the identity of a registration; ok is false without such a registration.
func (s *Signer) identity(nodeID uint64, list []store.Workload, id string) (spiffeid.ID, []string, bool) {
	if id == "" {
		self, err := certs.NodeSVID(s.ClusterID, nodeID)
		return self, nil, err == nil
	}
	i := slices.IndexFunc(list, func(w store.Workload) bool { return w.ID == id })
	if i < 0 {
		return spiffeid.ID{}, nil, false
	}
	name, err := certs.WorkloadID(s.ClusterID, list[i].Path)
	return name, list[i].Hosts, err == nil
}

// SVIDs signs certificates for a member. It leaves out what is not registered for it.
func (s *Signer) SVIDs(ctx context.Context, nodeID uint64, q SVIDRequest) (a SVIDAnswer, err error) {
	if len(q.List) > maxPerRequest {
		return a, errRequest
	}
	list, err := s.Store.Workloads.Of(ctx, store.AsLeader, nodeID)
	if err != nil {
		return a, err
	}
	trust, err := s.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return a, err
	}
	by := &trust.Workload
	if by.Generation == 0 {
		return a, store.ErrNoWorkloadCA
	}
	lifetime, _, err := s.Store.Settings.Lifetimes(ctx, store.AsLeader)
	if err != nil {
		return a, err
	}
	above, err := above(by)
	if err != nil {
		return a, err
	}
	now := s.Store.Now()
	for _, k := range q.List {
		id, hosts, known := s.identity(nodeID, list, k.Workload)
		if !known {
			continue
		}
		key, err := x509.ParsePKIXPublicKey(k.Key)
		if err != nil {
			return a, errRequest
		}
		leaf, err := by.SignSVID(key, certs.SVID{ID: id, Hosts: hosts, NotBefore: now.Add(-backdate),
			NotAfter: now.Add(lifetime)})
		if err != nil {
			return a, err
		}
		a.List = append(a.List, SignedSVID{k.Workload, append([][]byte{leaf}, above...)})
	}
	return a, nil
}

// above lists the certificates that follow a leaf: the issuing authority if another one certifies it, and its
// cross-certificate in a rotation. An operator's intermediate is presented although it is trusted here, because others
// may know only its root. Roots are not presented.
func above(by *store.Issuer) (chain [][]byte, err error) {
	list, err := certs.ParseCerts(by.Chain)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		if !bytes.Equal(c.RawIssuer, c.RawSubject) {
			chain = append(chain, c.Raw)
		}
	}
	return chain, nil
}

// JWT signs a JWT-SVID for a member.
func (s *Signer) JWT(ctx context.Context, nodeID uint64, q JWTRequest) (a JWTAnswer, err error) {
	if err := checkAudience(q.Audience); err != nil {
		return a, err
	}
	list, err := s.Store.Workloads.Of(ctx, store.AsLeader, nodeID)
	if err != nil {
		return a, err
	}
	id, _, known := s.identity(nodeID, list, q.Workload)
	if !known {
		return a, errRequest
	}
	trust, err := s.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return a, err
	}
	if trust.Workload.Generation == 0 {
		return a, store.ErrNoWorkloadCA
	}
	_, lifetime, err := s.Store.Settings.Lifetimes(ctx, store.AsLeader)
	if err != nil {
		return a, err
	}
	a.Token, err = trust.Workload.JWT.Sign(id, q.Audience, s.Store.Now(), lifetime)
	return a, err
}

// Refused writes audit rows of callers that a member has rejected, within the member's limit for a minute.
func (s *Signer) Refused(ctx context.Context, nodeID uint64, list []store.RefusedCaller) error {
	if len(list) > maxRefused {
		return errRequest
	}
	s.mu.Lock()
	if s.refuse == nil {
		s.refuse = map[uint64]*rate.Limiter{}
	}
	l := s.refuse[nodeID]
	if l == nil {
		l = rate.NewLimiter(rate.Every(time.Minute/maxRefused), maxRefused)
		s.refuse[nodeID] = l
	}
	s.mu.Unlock()
	if len(list) == 0 || !l.AllowN(time.Now(), len(list)) {
		return nil
	}
	return s.Store.Workloads.NoteRefused(ctx, nodeID, list)
}
