package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

const (
	keyPoll  = 200 * time.Millisecond
	keyStall = 2 * time.Minute // without progress or an answer
)

func newKeyCommand(env *environment) *cobra.Command {
	group := newGroup("key", "Show and change the data-encryption key of the cluster")
	group.AddCommand(newKeyListCommand(env), newKeyRotateCommand(env), newKeyStatusCommand(env))
	return group
}

func newKeyListCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List the generations of the data-encryption key, never the keys",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			generations, err := env.generations(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, generations,
				[]string{"GENERATION", "STATE", "HOLDERS", "TOTAL", "REMAINING", "CREATED", "REASON"},
				func(g client.Generation) []any {
					return []any{g.Generation, g.State, g.Holders, g.Total, g.Remaining, g.CreatedAt, g.Reason}
				})
		},
	}, env)
}

// keyStatus is the progress of the newest generation.
type keyStatus struct {
	Generation uint64 `json:"generation"`
	State      string `json:"state"` // "re-encrypting" while older generations are still needed, then "active"
	Percent    int    `json:"percent"`
	Total      int    `json:"total"`
	Remaining  int    `json:"remaining"`
	Holders    int    `json:"holders"`
}

// statusOfKeys returns the progress of the newest generation in a sorted list.
func statusOfKeys(list []client.Generation) (s keyStatus, err error) {
	if len(list) == 0 {
		return s, errors.New("the cluster names no generation of its data-encryption key")
	}
	g := list[len(list)-1]
	s = keyStatus{g.Generation, g.State, 100, g.Total, g.Remaining, g.Holders}
	for _, older := range list[:len(list)-1] {
		if older.State == "re-encrypting" {
			s.State, s.Percent = "re-encrypting", 0
		}
	}
	if s.State == "re-encrypting" && g.Total > 0 { // 100 only once the old generations are retired
		s.Percent = min(max(100*(g.Total-g.Remaining)/g.Total, 0), 99)
	}
	return s, nil
}

func newKeyStatusCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "status",
		Short: "Show the newest generation and the progress of re-encryption",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			generations, err := env.generations(cmd.Context())
			if err != nil {
				return err
			}
			s, err := statusOfKeys(generations)
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(s)
			}
			return env.table([]string{"GENERATION", "STATE", "PERCENT", "REMAINING", "HOLDERS"},
				[][]any{{s.Generation, s.State, s.Percent, s.Remaining, s.Holders}})
		},
	}, env)
}

func newKeyRotateCommand(env *environment) *cobra.Command {
	var noWait bool
	var maxAge time.Duration
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make a new data-encryption key and wait for the re-encryption",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var age *time.Duration
			if cmd.Flags().Changed("max-age") {
				if maxAge != 0 && maxAge < time.Hour {
					return usagef(cmd, "--max-age must be at least 1h, or 0s for never")
				}
				age = &maxAge
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			generation, err := c.RotateDEK(cmd.Context(), age)
			if err != nil {
				return err
			}
			if noWait {
				if env.output == "json" {
					return env.json(map[string]uint64{"generation": generation})
				}
				env.say("generation %d is active; \"muster key status\" shows the progress of re-encryption", generation)
				return nil
			}
			s, err := env.waitReencrypted(cmd.Context(), c, generation)
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(s)
			}
			env.say("generation %d is active, the older ones are retired", generation)
			return nil
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for re-encryption; it continues by itself")
	cmd.Flags().DurationVar(&maxAge, "max-age", 0,
		"from now on rotate automatically at this age of the key, at least 1h; 0s: never (default: unchanged)")
	return cmd
}

// waitReencrypted blocks until no older generation is in use, with its progress on stderr. It tolerates a lack of
// answers for a while, as during a change of leader.
func (e *environment) waitReencrypted(ctx context.Context, c *client.Client, generation uint64) (s keyStatus,
	err error) {
	bar := console.NewBar(e.stderr, "re-encrypting")
	defer bar.End()
	moved, last := time.Now(), -1
	var trouble error
	for {
		generations, err := someGenerations(ctx, c)
		var refusal *client.Error
		switch {
		case err == nil:
			if s, err = statusOfKeys(generations); err != nil {
				return s, err
			}
			busy := false
			for _, g := range generations {
				busy = busy || g.Generation < generation && g.State == "re-encrypting"
			}
			bar.Show(s.Percent, s.Total-s.Remaining, s.Total)
			if !busy {
				return s, nil
			}
			if s.Remaining != last {
				moved, last = time.Now(), s.Remaining
			}
		case errors.As(err, &refusal) && refusal.Status < 500:
			return s, err
		}
		trouble = err
		if time.Since(moved) > keyStall {
			if trouble != nil {
				return s, fmt.Errorf("the progress of re-encryption is unknown: %w", trouble)
			}
			return s, fmt.Errorf("re-encryption has not progressed for %s, %s left; it continues by itself, "+
				"\"muster key status\" shows it", keyStall, count(s.Remaining, "value"))
		}
		select {
		case <-time.After(keyPoll):
		case <-ctx.Done():
			bar.End()
			e.say("re-encryption continues by itself; \"muster key status\" shows it")
			return s, ctx.Err()
		}
	}
}

// generations reads the generations, with or without a leader.
func (e *environment) generations(ctx context.Context) ([]client.Generation, error) {
	c, err := e.reader(ctx)
	if err != nil {
		return nil, err
	}
	return c.Generations(ctx)
}

// someGenerations reads the generations with a single short request.
func someGenerations(ctx context.Context, c *client.Client) ([]client.Generation, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.Generations(ctx)
}

func newJoinKeysCommand(env *environment) *cobra.Command {
	group := newGroup("join-keys", "Change the signing keys of join tokens")
	group.AddCommand(newJoinKeysRotateCommand(env))
	return group
}

// ended describes how many join tokens the new keys end.
func ended(tokens int) string {
	switch tokens {
	case 0:
		return "no valid join token is affected"
	case 1:
		return "that ends 1 valid join token"
	}
	return fmt.Sprintf("that ends %d valid join tokens", tokens)
}

func newJoinKeysRotateCommand(env *environment) *cobra.Command {
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make new keys for join tokens; older tokens remain valid during the grace",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 || grace > 90*24*time.Hour {
				return usagef(cmd, "--grace %s is not between 0s and 2160h", grace)
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			keys, err := c.RotateJoinKeys(cmd.Context(), grace)
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(keys)
			}
			if grace == 0 {
				env.say("the join keys are new; older tokens are no longer valid: %s",
					ended(keys.TokensEnded))
				return nil
			}
			env.say("the join keys are new; older tokens are valid until %s: %s",
				console.Cell(keys.GraceUntil), ended(keys.TokensEnded))
			return nil
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", 7*24*time.Hour,
		"how long older tokens remain valid, at most 2160h (90 days); 0s: not at all")
	return cmd
}
