package native

import (
	"context"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/store"
)

func (s *service) httpCRL(q *handlers.Request) error { return s.crl(q, certs.HTTP) }

func (s *service) transportCRL(q *handlers.Request) error { return s.crl(q, certs.Transport) }

// crlFor is how long a signed list is served again while nothing changes. It is valid for a day.
const crlFor = time.Hour

// crls caches the last signed lists: the endpoint is open, so strangers could otherwise cause a signature per request.
type crls struct {
	turn chan struct{} // one signs at a time; others wait for its result
	m    map[certs.Kind]crl
}

func newCRLs() *crls { return &crls{make(chan struct{}, 1), map[certs.Kind]crl{}} }

type crl struct {
	der   []byte
	after uint64 // the revision that it is based on
	made  time.Time
}

// crl serves the revocation list of an authority: certificates of removed members and revoked enrollments. It is for
// enrolled software; members learn of revocations from the state.
func (s *service) crl(q *handlers.Request, kind certs.Kind) error {
	if err := s.Replica.Confirm(q.Context()); err != nil {
		return err
	}
	der, err := s.signedCRL(q.Context(), kind)
	if err != nil {
		return err
	}
	q.W.Header().Set("Content-Type", "application/pkix-crl")
	_, err = q.W.Write(der)
	return err
}

func (s *service) signedCRL(ctx context.Context, kind certs.Kind) ([]byte, error) {
	select {
	case s.crls.turn <- struct{}{}:
		defer func() { <-s.crls.turn }()
	case <-ctx.Done():
		return nil, handlers.Later("the list is being signed; try again")
	}
	after, now := s.Replica.ChangedAt("certificates", "authorities"), s.Now()
	if last, ok := s.crls.m[kind]; ok && last.after == after && now.Sub(last.made).Abs() < crlFor {
		return last.der, nil
	}
	der, err := s.newCRL(ctx, kind)
	if err == nil {
		s.crls.m[kind] = crl{der, after, now}
	}
	return der, err
}

func (s *service) newCRL(ctx context.Context, kind certs.Kind) ([]byte, error) {
	list, err := s.Certificates.Revoked(ctx, store.AsLeader, kind)
	if err != nil {
		return nil, err
	}
	ca, err := s.Authorities.Issuing(ctx, store.AsLeader, kind)
	if err != nil {
		return nil, err
	}
	return ca.SignCRL(list, s.Replica.Revision(), s.Now())
}
