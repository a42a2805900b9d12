package ella

import (
	"net/http"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/store"
)

const (
	minMintTTL = 300   // seconds
	maxMintTTL = 86400 // seconds
)

// mintJoinToken serves the documented endpoint: a single-use token for one node id (reference ella_members, 1.2).
func (s *service) mintJoinToken(q *handlers.Request) error {
	f, err := handlers.ParseFields(q.Content)
	if err != nil {
		return undecoded(err)
	}
	var node, ttl int64
	f.Get("nodeID", false, "a whole number between 1 and 9007199254740991", &node)
	f.Get("ttlSeconds", false, "a whole number between 300 and 86400", &ttl)
	if f.Err != nil {
		return undecoded(f.Err)
	}
	if node < 1 || node > certs.MaxNodeID {
		return handlers.Fail(http.StatusBadRequest, "nodeID must be in [1, 9007199254740991]")
	}
	if ttl == 0 {
		ttl = handlers.DefaultTokenTTL
	}
	if ttl < minMintTTL || ttl > maxMintTTL {
		return handlers.Fail(http.StatusBadRequest, "ttlSeconds must be between 300 and 86400")
	}
	ends := s.Now().Add(time.Duration(ttl) * time.Second).Truncate(time.Second)
	t, err := s.Tokens.Mint(q.Context(), q.Actor,
		store.JoinToken{Format: store.FormatMuster, NodeID: uint64(node), MaxUses: 1, ExpiresAt: *q.NoLonger(&ends)})
	if err != nil {
		return err
	}
	return q.Result(http.StatusCreated, struct {
		Token     string `json:"token"`
		ExpiresAt int64  `json:"expiresAt"`
		ID        string `json:"id"`
	}{t.Text, t.ExpiresAt.Unix(), t.ID})
}

// undecoded returns the refusal of a body with unreadable fields: the documented words, and the reason.
func undecoded(err error) error {
	return handlers.Fail(http.StatusBadRequest, "decode body: "+err.Error())
}
