package native

import (
	"muster/certs"
	"muster/handlers"
	"muster/store"
)

func (s *service) httpCRL(q *handlers.Request) error { return s.crl(q, certs.HTTP) }

func (s *service) transportCRL(q *handlers.Request) error { return s.crl(q, certs.Transport) }

// crl lists the certificates of an authority that are revoked: of removed members and of enrollments that were taken
// back. It is for software that has enrolled; members know by themselves.
func (s *service) crl(q *handlers.Request, kind certs.Kind) error {
	ctx := q.Context()
	list, err := s.Certificates.Revoked(ctx, store.Linearisable, kind)
	if err != nil {
		return err
	}
	ca, err := s.Authorities.Issuing(ctx, store.AsLeader, kind)
	if err != nil {
		return err
	}
	der, err := ca.SignCRL(list, s.Replica.Revision(), s.Now())
	if err != nil {
		return err
	}
	q.W.Header().Set("Content-Type", "application/pkix-crl")
	_, err = q.W.Write(der)
	return err
}
