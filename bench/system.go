package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// system is a program that forms a cluster of three processes on this machine.
type system interface {
	name() string
	// start blocks until all three are voters and answer.
	start(ctx context.Context, f *fleet) (cluster, error)
}

// cluster is three running processes; members are numbered from 0.
type cluster interface {
	processes() []*process
	links() *links // nil: the members reach each other directly
	leader(ctx context.Context) (int, error)
	dial(member int, shared bool) (conn, error)       // one connection to one member; shared: by many clients at a time
	caughtUp(ctx context.Context, member int) error   // nil once it is a voter and knows what the leader knows now
	transfer(ctx context.Context, from, to int) error // hands leadership over
}

// conn is a connection to one member.
type conn interface {
	// write makes one small durable change. A repetition with the same non-empty key changes nothing.
	write(ctx context.Context, key string) error
	// read makes one linearisable read of what (reads.go).
	read(ctx context.Context, what string) error
	close()
}

const members = 3

func stop(c cluster) {
	for _, p := range c.processes() {
		p.cutProfile(p.fleet.part)
		p.kill()
	}
}

// findLeader blocks until there is a leader and returns it.
func findLeader(ctx context.Context, c cluster) (int, error) {
	leader := -1
	err := eventually(ctx, 15*time.Second, func(ctx context.Context) (err error) {
		leader, err = c.leader(ctx)
		return err
	})
	return leader, err
}

// findFollower returns a member that does not lead.
func findFollower(ctx context.Context, c cluster) (int, error) {
	leader, err := findLeader(ctx, c)
	return (leader + 1) % members, err
}

// allCaughtUp blocks until every member is an up-to-date voter.
func allCaughtUp(ctx context.Context, c cluster) error {
	for i, p := range c.processes() {
		err := eventually(ctx, time.Minute, func(ctx context.Context) error {
			if err := p.gone(); err != nil {
				return err
			}
			return c.caughtUp(ctx, i)
		})
		if err != nil {
			return fmt.Errorf("member %d of 3: %w", i+1, err)
		}
	}
	return nil
}

var errNoLeader = errors.New("no member leads")
