package cli

import (
	"fmt"

	"github.com/spf13/pflag"

	"muster/node"
)

// limitFlags bound what clients of a member can hold.
func limitFlags(c *node.Config) []limitFlag {
	l, conns := &c.Limits, &c.Connections
	return []limitFlag{
		{"max-connections", &conns.All,
			"connections of clients at once, never more than half of the open files that the process may have"},
		{"max-connections-per-address", &conns.PerAddress,
			"connections of one address (IPv6: /64) at once that have shown no valid credential; the oldest gives way"},
		{"max-requests", &l.Requests, "requests in work at once"},
		{"max-requests-per-address", &l.StrangersPerAddress,
			"requests of one address (IPv6: /64) at once that show no valid credential"},
		{"max-streams", &l.Streams, "requests at once on one HTTP/2 connection"},
		{"max-blocking-queries", &l.Blocking, "blocking queries at once"},
		{"max-blocking-queries-per-identity", &l.BlockingPerIdentity, "blocking queries of one credential at once"},
		{"max-event-readers", &l.Readers, "readers of the stream of events at once"},
		{"max-event-readers-per-identity", &l.ReadersPerIdentity, "readers with one credential at once"},
	}
}

type limitFlag struct {
	name  string
	into  *int // holds the default
	usage string
}

func registerLimits(flags *pflag.FlagSet, c *node.Config) {
	for _, f := range limitFlags(c) {
		flags.IntVar(f.into, f.name, *f.into, f.usage)
	}
}

const mostOfAnything = 1_000_000

func checkLimits(c *node.Config) error {
	for _, f := range limitFlags(c) {
		if *f.into < 1 || *f.into > mostOfAnything {
			return fmt.Errorf("--%s must be between 1 and %d, not %d", f.name, mostOfAnything, *f.into)
		}
	}
	return nil
}
