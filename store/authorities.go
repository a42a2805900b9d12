package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/musterhq/muster/certs"
)

// TrustBundle returns the certificates of the authorities of a kind that are trusted now, each as PEM, the one that
// issues first: during a rotation there are two. It reads the leader's state, or the local replica on other members. To
// watch it, wait for changes of the table "authorities" (AwaitChange on the leader, MirrorChanged elsewhere).
func (s *Store) TrustBundle(ctx context.Context, kind certs.Kind) (list []string, err error) {
	load := func(v *View) ([]string, error) { return v.trustBundle(kind) }
	list, err = memo(ctx, s, "trust/"+string(kind), []string{"authorities"}, load)
	if errors.Is(err, ErrNotLeader) {
		err = s.Read(ctx, Stale, func(v *View) (err error) {
			list, err = load(v)
			return err
		})
	}
	return list, err
}

func (v *View) trustBundle(kind certs.Kind) ([]string, error) {
	list, err := collect(v, func(rows *sql.Rows) (string, error) {
		var pem string
		if err := rows.Scan(&pem); err != nil {
			return "", err
		}
		cas, err := certs.ParseCerts([]byte(pem))
		if err != nil {
			return "", err
		}
		return string(certs.EncodeCert(cas[0].Raw)), nil
	}, "SELECT cert_pem FROM authorities WHERE kind = ? AND state IN ('prepared', 'active', 'trusted') ORDER BY state <> 'active', generation DESC", string(kind))
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("store: there is no %s authority", kind)
	}
	return list, err
}
