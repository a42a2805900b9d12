package certs

import "regexp"

var datacenterLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidDatacenter tells whether a name can be that of a datacenter: a DNS label in lower case.
func ValidDatacenter(name string) bool { return datacenterLabel.MatchString(name) }

// PeeringName is the server name under which other clusters ask for this one, server.<datacenter>.peering.<cluster
// id>.consul (reference/consul_peering.md 2.1): unique for the cluster, and a DNS name of each member's transport leaf.
func PeeringName(datacenter, clusterID string) string {
	return "server." + datacenter + ".peering." + clusterID + ".consul"
}
