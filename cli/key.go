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
	group := newGroup("key", "Look at and change the data-encryption key of the cluster")
	group.AddCommand(newKeyListCommand(env), newKeyRotateCommand(env), newKeyStatusCommand(env))
	return group
}

func newKeyListCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List the generations of the data-encryption key, never the keys",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			generations, err := c.Generations(cmd.Context())
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

// keyStatus is where the newest generation is on its way.
type keyStatus struct {
	Generation uint64 `json:"generation"`
	State      string `json:"state"` // "re-encrypting" while older generations are still needed, then "active"
	Percent    int    `json:"percent"`
	Total      int    `json:"total"`
	Remaining  int    `json:"remaining"`
	Holders    int    `json:"holders"`
}

// statusOfKeys looks at the newest generation of a list that is sorted.
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
	if s.State == "re-encrypting" && g.Total > 0 { // 100 is for when the old generations are retired
		s.Percent = min(max(100*(g.Total-g.Remaining)/g.Total, 0), 99)
	}
	return s, nil
}

func newKeyStatusCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "status",
		Short: "Show the newest generation and how much is encrypted under it",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			generations, err := c.Generations(cmd.Context())
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
		Short: "Make a new data-encryption key and wait until everything is encrypted under it",
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
				env.say("generation %d is active; \"muster key status\" shows how far re-encryption is", generation)
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
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for re-encryption; it goes on by itself")
	cmd.Flags().DurationVar(&maxAge, "max-age", 0,
		"also have the cluster rotate by itself when the key is this old, at least 1h; 0s: never (default: as it is set)")
	return cmd
}

// waitReencrypted polls until no generation before this one is in use, with its progress on stderr. It bears with servers
// that do not answer for a while, as when leadership changes.
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
				return s, fmt.Errorf("it is not known how far re-encryption is: %w", trouble)
			}
			return s, fmt.Errorf("re-encryption has not moved for %s, %s left; it goes on by itself, \"muster key status\" shows it", keyStall, count(s.Remaining, "value"))
		}
		select {
		case <-time.After(keyPoll):
		case <-ctx.Done():
			bar.End()
			e.say("re-encryption goes on by itself; \"muster key status\" shows it")
			return s, ctx.Err()
		}
	}
}

// someGenerations asks once, within a few seconds.
func someGenerations(ctx context.Context, c *client.Client) ([]client.Generation, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.Generations(ctx)
}

func newJoinKeysCommand(env *environment) *cobra.Command {
	group := newGroup("join-keys", "Change the keys that join tokens are signed with")
	group.AddCommand(newJoinKeysRotateCommand(env))
	return group
}

// ended says how many join tokens new keys end.
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
		Short: "Make new keys for join tokens; tokens made before can be used during the grace",
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
				env.say("the join keys are new; no token that was made before can be used any more: %s",
					ended(keys.TokensEnded))
				return nil
			}
			env.say("the join keys are new; tokens that were made before can be used until %s: %s",
				console.Cell(keys.GraceUntil), ended(keys.TokensEnded))
			return nil
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", 7*24*time.Hour,
		"how long tokens that were made before can be used, at most 2160h (90 days); 0s: not at all")
	return cmd
}
