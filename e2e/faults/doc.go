// Package faults has no code of its own: its tests are fault campaigns. A campaign runs real members whose links go
// through a relay, does to them what a seed has decided, records what clients ask and what they are told meanwhile, and
// checks that the record fits one linearisable cluster. docs/reliability.md says how to run one.
//
// FAULTS, SEED, MEMBERS, OUT and BINARY in the environment set the number of faults, the seed, the number of members,
// the directory for what a failing run leaves, and another muster to run in place of this test binary.
package faults
