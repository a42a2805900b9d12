// Package workload gives software on a member's machine an identity: it serves the SPIFFE Workload API on a Unix socket.
//
// A process is known by what the kernel says of the other end of its connection: user, groups, systemd unit. What is
// registered for it is in the members' database; keys are made on the member and never leave it but to the workload itself.
// The leader alone signs, and signs for a member what is registered for that member and nothing else. Everything that can be
// asked for is made before it is asked for, so that an answer needs no other machine and the socket works without a leader
// until the certificates end.
//
// It does not decide who is a workload, and knows nothing of transport certificates: the workload authority signs none.
package workload

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"muster/store"
)

// Paths of internal requests, served by whoever leads.
const (
	PathSVIDs   = "/internal/workloads/svids"
	PathJWT     = "/internal/workloads/jwt"
	PathRefused = "/internal/workloads/refused"
)

// Leader is what a member asks of the leader: of another member over the cluster listener, or of itself.
type Leader interface {
	SignSVIDs(ctx context.Context, q SVIDRequest) (SVIDAnswer, error)
	SignJWT(ctx context.Context, q JWTRequest) (JWTAnswer, error)
	NoteRefused(ctx context.Context, list []store.RefusedCaller) error
}

// SVIDRequest asks for certificates of workloads of one member.
type SVIDRequest struct {
	List []PublicKey `json:"list"` // at most maxPerRequest
}

// PublicKey is that of a registered workload.
type PublicKey struct {
	Workload string `json:"workload"` // id of the registration; empty: the member itself
	Key      []byte `json:"key"`      // PKIX, DER
}

// SVIDAnswer has the certificates of those that the leader knows to be registered for the member.
type SVIDAnswer struct {
	List []SignedSVID `json:"list"`
}

// SignedSVID is a certificate chain, the leaf first.
type SignedSVID struct {
	Workload string   `json:"workload"`
	Chain    [][]byte `json:"chain"` // DER
}

// JWTRequest asks for a JWT-SVID.
type JWTRequest struct {
	Workload string   `json:"workload"` // as in PublicKey
	Audience []string `json:"audience"`
}

// JWTAnswer is a JWT-SVID.
type JWTAnswer struct {
	Token string `json:"token"`
}

const (
	maxPerRequest = 200 // certificates
	maxAudience   = 16
	maxAudiences  = 2048 // bytes of all audiences together
	backdate      = 5 * time.Minute
)

// errAudience is the rule for audiences.
var errAudience = errors.New("audience must be 1 to 16 texts, none empty, of at most 2048 bytes together")

func checkAudience(list []string) error {
	size := 0
	for _, a := range list {
		if a == "" {
			return errAudience
		}
		size += len(a)
	}
	if len(list) == 0 || len(list) > maxAudience || size > maxAudiences {
		return errAudience
	}
	return nil
}

// Registry is what a member reads of its own copy of the database, without asking anybody.
type Registry interface {
	// Workloads lists what is registered for this member.
	Workloads(ctx context.Context) ([]store.Workload, error)
	// Bundle returns what identities of this cluster are verified with.
	Bundle(ctx context.Context) (*spiffebundle.Bundle, error)
	// PeerBundles lists those of other clusters.
	PeerBundles(ctx context.Context) ([]store.PeerBundle, error)
	// Changed is closed when the copy may say something else than it did at the time of the call.
	Changed() <-chan struct{}
}

// Config is what the Workload API of a member needs.
type Config struct {
	Listener  *Listener
	ClusterID string
	NodeID    uint64
	Registry  Registry
	Leader    Leader
	Kept      string // file with what is ready, for the next start; empty: nothing is kept
	Logger    *slog.Logger
}
