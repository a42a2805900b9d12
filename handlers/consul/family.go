// Package consul is the peering with other clusters as Consul has it (reference consul_peering): tokens, establishing,
// reading with blocking queries, and deleting.
package consul

import (
	"context"
	"net/http"
	"time"

	"muster/handlers"
)

// Headers of answered reads (reference consul_peering, section 1.1).
const (
	headerKnownLeader = "X-Consul-Knownleader"
	headerLastContact = "X-Consul-Lastcontact"
)

// Config is what the family needs.
type Config struct {
	Replica     Replica
	Authorities Authorities
	Members     Members
	Peerings    Peerings
	Settings    Settings
	Peers       Peers
	ClusterID   string
	Now         func() time.Time
}

// Peers are the other clusters.
type Peers interface {
	// ExchangeSecret trades the secret of another cluster's token for a stream secret; store.ErrPeeringSecret when
	// that cluster refuses it, and what the error says is for the caller when it cannot be reached.
	ExchangeSecret(ctx context.Context, addresses []string, serverName string, pems []string, peerID,
		secret string) (string, error)
	// MayDial tells why an address of another cluster must not be dialled, as far as that is known before it is resolved.
	MayDial(ctx context.Context, address string) (why, err error)
	// Stream is what the leader knows of a peering's stream.
	Stream(peeringID string) Stream
}

type service struct{ Config }

// New returns the family. It answers errors as plain text, too, with the policy of its access control on every answer
// (reference consul_peering, section 1.2).
func New(cfg Config) *handlers.Family {
	s := &service{cfg}
	routes := s.routes()
	paths := peeringPaths{routes}
	return &handlers.Family{
		Name:   "consul",
		Paths:  []string{peeringPrefix},
		Routes: routes,

		Headers: func(w http.ResponseWriter) {
			w.Header().Set("Vary", "Accept-Encoding")
			w.Header().Set("X-Consul-Default-Acl-Policy", "deny")
		},
		Fail:     handlers.PlainFail,
		NoLeader: handlers.Failure{Status: http.StatusInternalServerError, Text: "No cluster leader"},
		UnknownOutcome: handlers.Failure{Status: http.StatusInternalServerError,
			Text: "leadership lost while committing log"},
		Age:        &handlers.AgeHeaders{KnownLeader: headerKnownLeader, LastContact: headerLastContact},
		Denied:     deniedPeering,
		Credential: peeringCredential,
		Aside:      &handlers.Aside{Method: "other", Path: "other", Takes: paths.takes, Serve: paths.serve},
	}
}
