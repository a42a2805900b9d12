package cli

import (
	"fmt"

	"github.com/spf13/pflag"

	"muster/handlers"
)

// limitFlags bound what clients of this member can hold.
type limitFlags struct {
	connections, connectionsPerAddress int
	handlers.Limits
}

func (l *limitFlags) each() []limitFlag {
	d := handlers.DefaultLimits
	return []limitFlag{
		{"max-connections", &l.connections, 8192, "connections of clients at once, never more than half of the open files that the process may have"},
		{"max-connections-per-address", &l.connectionsPerAddress, 1024, "connections of one address (IPv6: /64) at once that have shown no valid credential; the oldest gives way"},
		{"max-requests", &l.Requests, d.Requests, "requests in work at once"},
		{"max-requests-per-address", &l.StrangersPerAddress, d.StrangersPerAddress, "requests of one address (IPv6: /64) at once that show no valid credential"},
		{"max-streams", &l.Streams, d.Streams, "requests at once on one HTTP/2 connection"},
		{"max-blocking-queries", &l.Blocking, d.Blocking, "blocking queries at once"},
		{"max-blocking-queries-per-identity", &l.BlockingPerIdentity, d.BlockingPerIdentity, "blocking queries of one credential at once"},
		{"max-event-readers", &l.Readers, d.Readers, "readers of the stream of events at once"},
		{"max-event-readers-per-identity", &l.ReadersPerIdentity, d.ReadersPerIdentity, "readers with one credential at once"},
	}
}

type limitFlag struct {
	name      string
	into      *int
	otherwise int
	usage     string
}

func (l *limitFlags) register(flags *pflag.FlagSet) {
	for _, f := range l.each() {
		flags.IntVar(f.into, f.name, f.otherwise, f.usage)
	}
}

const mostOfAnything = 1_000_000

func (l *limitFlags) check() error {
	for _, f := range l.each() {
		if *f.into < 1 || *f.into > mostOfAnything {
			return fmt.Errorf("--%s must be between 1 and %d, not %d", f.name, mostOfAnything, *f.into)
		}
	}
	return nil
}
