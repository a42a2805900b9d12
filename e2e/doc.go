// Package e2e has no code of its own: its tests run real members, each a process with its own data directory and ports
// on loopback, and do to them what happens to machines. They are killed, stopped, cut off, lied to and started again.
//
// The test binary runs itself again as muster, so `go test -race ./e2e` tests members that were built with the race
// detector and needs no other binary. What a member writes to its log is checked when the test ends: no race, no panic,
// no internal error.
package e2e
