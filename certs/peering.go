package certs

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

var datacenterLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidDatacenter reports whether a name is a valid datacenter name: a DNS label in lower case.
func ValidDatacenter(name string) bool { return datacenterLabel.MatchString(name) }

var (
	peeringName = regexp.MustCompile(`^server\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.peering\.` +
		`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\.consul$`)
	serverName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	peeringID  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// ValidPeeringName reports whether a name has the form that PeeringName returns.
func ValidPeeringName(name string) bool { return peeringName.MatchString(name) }

// ValidServerName reports whether a name is a DNS name in lower case with at least two labels, and no IP address.
func ValidServerName(name string) bool { return len(name) <= 253 && serverName.MatchString(name) }

// ValidPeeringID reports whether a text has the form of a peering's ID, which its secrets have too.
func ValidPeeringID(id string) bool { return peeringID.MatchString(id) }

// PeeringName is the TLS server name of this cluster for other clusters, server.<datacenter>.peering.<cluster
// id>.consul (reference/consul_peering.md 2.1). It is unique for the cluster and a DNS name of each member's transport
// leaf.
func PeeringName(datacenter, clusterID string) string {
	return "server." + datacenter + ".peering." + clusterID + ".consul"
}

// NewUUID returns an id or a one-time secret in the form of peering tokens: 16 random bytes as 8-4-4-4-12 lower-case
// hex digits, without the version bits of RFC 9562 (reference/consul_peering.md 2.1).
func NewUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
