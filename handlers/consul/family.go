// Package consul serves Consul's cluster peering API (reference consul_peering): tokens, establishing, reading with
// blocking queries, and deleting.
package consul

import (
	"context"
	"net/http"
	"time"

	"muster/handlers"
)

// Headers of reads (reference consul_peering, section 1.1).
const (
	headerKnownLeader = "X-Consul-Knownleader"
	headerLastContact = "X-Consul-Lastcontact"
)

// Config holds the dependencies of the family.
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
	// ExchangeSecret exchanges the secret of another cluster's token for a stream secret. It returns
	// store.ErrPeeringSecret when that cluster rejects it; when the cluster cannot be reached, the error's text is for
	// the caller.
	ExchangeSecret(ctx context.Context, addresses []string, serverName string, pems []string, peerID,
		secret string) (string, error)
	// MayDial returns why an address of another cluster must not be dialled, as far as that is known before resolution.
	MayDial(ctx context.Context, address string) (why, err error)
	// Stream returns the state of a peering's stream at the leader.
	Stream(peeringID string) Stream
}

type service struct{ Config }

// New returns the family. Its errors are plain text, and every answer has the header with the default ACL policy
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
