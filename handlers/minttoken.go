package handlers

import (
	"net/http"

	"muster/certs"
	"muster/store"
)

const (
	minMintTTL = 300   // seconds
	maxMintTTL = 86400 // seconds
)

// mintJoinToken is the documented endpoint: a single-use token for one node id (reference ella_members, 1.2).
func (s *Server) mintJoinToken(q *Request) error {
	f, err := ParseFields(q.Content)
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
		return Fail(http.StatusBadRequest, "nodeID must be in [1, 9007199254740991]")
	}
	if ttl == 0 {
		ttl = defaultTokenTTL
	}
	if ttl < minMintTTL || ttl > maxMintTTL {
		return Fail(http.StatusBadRequest, "ttlSeconds must be between 300 and 86400")
	}
	token, t, err := s.newJoinToken(q, store.JoinToken{Format: store.FormatMuster, NodeID: uint64(node), MaxUses: 1}, ttl)
	if err != nil {
		return err
	}
	return q.Result(http.StatusCreated, struct {
		Token     string `json:"token"`
		ExpiresAt int64  `json:"expiresAt"`
		ID        string `json:"id"`
	}{token, t.ExpiresAt.Unix(), t.ID})
}

// undecoded is the refusal of a body whose fields cannot be read: the documented words, and why.
func undecoded(err error) error {
	return Fail(http.StatusBadRequest, "decode body: "+err.Error())
}
