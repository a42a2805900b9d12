package zlayer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/store"
)

// verified is a join token with a valid signature.
type verified struct {
	id      string
	retired bool     // the key's grace period is over: the token only identifies a member that used it before
	notes   []string // for the operator
}

// signingKeyAge is the age at which the joiner's operator is advised to rotate the key.
const signingKeyAge = 90 * 24 * time.Hour

// verifyJoinToken verifies a token of either format as far as possible without its record in the database.
func (s *service) verifyJoinToken(ctx context.Context, text string) (v verified, err error) {
	if certs.LooksSigned(text) { // from here on it is not tried as another format
		return s.verifySigned(ctx, text)
	}
	t, err := certs.ParseJoinToken(text)
	if err != nil {
		return v, unauthorized("Invalid join token: malformed: %s", strings.TrimPrefix(err.Error(), "certs: "))
	}
	c := t.Claims()
	if c.ClusterID != s.ClusterID {
		return v, unauthorized("Invalid join token: it was made by another cluster (%s); this is cluster %s", c.ClusterID,
			s.ClusterID)
	}
	keys, err := s.Keys.List(ctx, store.AsLeader, store.KeyJoinHMAC)
	if err != nil {
		return v, err
	}
	now := s.Now()
	for i := range keys {
		switch err := t.Verify(keys[i].Secret, now); {
		case keys[i].State == store.KeyRetired: // retired by a removal: the removed member knows the key, so it admits nobody
			if err == nil || !errors.Is(err, certs.ErrTokenSignature) {
				return v, unauthorized("Invalid join token: %s", store.Superseded)
			}
		case errors.Is(err, certs.ErrTokenExpired):
			return v, unauthorized("Invalid join token: expired: it was good until %s and the cluster's clock says %s",
				timeOf(c.ExpiresAt), now.UTC().Format(handlers.TimeFormat))
		case errors.Is(err, certs.ErrTokenNotYetValid):
			return v, unauthorized("Invalid join token: not yet valid: it was issued at %s and the cluster's clock says %s; "+
				"are the members' clocks set?",
				timeOf(c.IssuedAt), now.UTC().Format(handlers.TimeFormat))
		case err == nil:
			return s.accept(c.ID, &keys[i]), nil
		}
	}
	return v, unauthorized("Invalid join token: invalid_signature")
}

// verifySigned verifies a token in ZLayer's format, with ZLayer's error texts (reference zlayer_join, section 2.2).
func (s *service) verifySigned(ctx context.Context, text string) (v verified, err error) {
	t, err := certs.ParseSignedToken(text)
	var version *certs.TokenVersionError
	switch {
	case errors.As(err, &version):
		return v, unauthorized("unsupported signed token version: got v=%d, expected v=1 or v=2", version.Got)
	case err != nil:
		return v, unauthorized("Invalid join token: malformed: %s", strings.TrimPrefix(err.Error(), "certs: "))
	}
	keys, err := s.Keys.List(ctx, store.AsLeader, store.KeyJoinSigning)
	if err != nil {
		return v, err
	}
	now := s.Now()
	for i := range keys {
		k := &keys[i]
		if k.KID != t.KeyID() {
			continue
		}
		switch err := t.Verify(ed25519.PublicKey(k.Public), now); {
		case k.State == store.KeyRetired && (err == nil || errors.Is(err, certs.ErrTokenExpired)):
			return v, unauthorized("signed token kid=%s not trusted: %s", t.KeyID(), store.Superseded)
		case errors.Is(err, certs.ErrTokenExpired):
			return v, unauthorized("signed token expired at %s (now %s)", t.Claims().Exp, now.UTC().Format(handlers.TimeFormat))
		case err != nil:
			return v, unauthorized("Ed25519 signature verification failed")
		}
		return s.accept(t.ID(), k), nil
	}
	return v, unauthorized("signed token kid=%s not trusted (unknown kid, expired grace, or never issued)", t.KeyID())
}

func (s *service) accept(id string, k *store.Key) verified {
	v := verified{id: id, retired: !k.Verifies(s.Now())}
	if age := s.Now().Sub(k.CreatedAt); age > signingKeyAge {
		v.notes = append(v.notes,
			fmt.Sprintf("consider rotating the key that signs join tokens, last rotated %d days ago", int(age.Hours()/24)))
	}
	if k.State == store.KeyGrace {
		v.notes = append(v.notes,
			"the token was signed with a key that has been rotated since and is accepted for a limited time")
	}
	return v
}

func unauthorized(format string, args ...any) error {
	return handlers.Fail(http.StatusUnauthorized, fmt.Sprintf(format, args...))
}

func timeOf(unix int64) string { return time.Unix(unix, 0).UTC().Format(handlers.TimeFormat) }
