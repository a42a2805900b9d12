// Package workload gives software on a member's machine an identity: it serves the SPIFFE Workload API on a Unix
// socket.
//
// A process is identified by the kernel's data about the other end of its connection: user, groups, systemd unit.
// Registrations are in the members' database; keys are made on the member and only the workload itself receives them.
// The leader alone signs, for a member only what is registered for that member. Everything is made before it is
// requested, so that an answer needs no other machine and the socket works without a leader until the certificates
// expire.
//
// It does not decide who is a workload, and it does not use transport certificates: the workload authority signs none.
package workload

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"muster/store"
)

// Paths of internal requests to the leader.
const (
	PathSVIDs   = "/internal/workloads/svids"
	PathJWT     = "/internal/workloads/jwt"
	PathRefused = "/internal/workloads/refused"
)

// Leader is what a member needs of the leader, which may be itself.
type Leader interface {
	SignSVIDs(ctx context.Context, q SVIDRequest) (SVIDAnswer, error)
	SignJWT(ctx context.Context, q JWTRequest) (JWTAnswer, error)
	NoteRefused(ctx context.Context, list []store.RefusedCaller) error
}

// SVIDRequest requests certificates for workloads of one member.
type SVIDRequest struct {
	List []PublicKey `json:"list"` // at most maxPerRequest
}

// PublicKey is the key of a registered workload.
type PublicKey struct {
	Workload string `json:"workload"` // id of the registration; empty: the member itself
	Key      []byte `json:"key"`      // PKIX, DER
}

// SVIDAnswer has the certificates for registrations of the member.
type SVIDAnswer struct {
	List []SignedSVID `json:"list"`
}

// SignedSVID is a certificate chain, the leaf first.
type SignedSVID struct {
	Workload string   `json:"workload"`
	Chain    [][]byte `json:"chain"` // DER
}

// JWTRequest requests a JWT-SVID.
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

// Registry is a member's copy of the database. It asks no other member.
type Registry interface {
	// Workloads lists the registrations for this member.
	Workloads(ctx context.Context) ([]store.Workload, error)
	// Bundle returns the trust bundle of this cluster.
	Bundle(ctx context.Context) (*spiffebundle.Bundle, error)
	// PeerBundles lists the trust bundles of other clusters.
	PeerBundles(ctx context.Context) ([]store.PeerBundle, error)
	// Changed returns a channel that is closed when the copy may have changed since the call.
	Changed() <-chan struct{}
}

// Config is the configuration of a member's Workload API.
type Config struct {
	Listener  *Listener
	ClusterID string
	NodeID    uint64
	Registry  Registry
	Leader    Leader
	Kept      string // file with the certificates, for the next start; empty: none
	Logger    *slog.Logger
}
