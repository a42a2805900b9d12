package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/client"
)

// auditSearch is one run of "muster audit".
type auditSearch struct {
	client.AuditQuery
	since, until string
	follow       bool
	limit        int
}

func newAuditCommand(env *environment) *cobra.Command {
	var s auditSearch
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what, the newest last",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(cmd); err != nil {
				return err
			}
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			return s.show(cmd.Context(), env, c)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&s.follow, "follow", "f", false, "continue with new entries, a line each")
	flags.StringVar(&s.since, "since", "", "entries since this time (RFC 3339), or since a duration ago")
	flags.StringVar(&s.until, "until", "", "entries until this time, or until a duration ago")
	flags.StringVar(&s.Actor, "actor", "", "actor: a name or the id of a token")
	flags.StringVar(&s.Action, "action", "", "beginning of the action, such as member.")
	flags.StringVar(&s.Object, "object", "", "on what, such as node/3")
	flags.StringVar(&s.Node, "node", "", "entries of this member: its number, name, UUID, address or host name")
	flags.IntVar(&s.limit, "limit", 50, "how many at most")
	return staleFlag(cmd, env)
}

// check parses the times and checks the limit.
func (s *auditSearch) check(cmd *cobra.Command) error {
	if s.limit < 1 || s.limit > 1_000_000 {
		return usagef(cmd, "--limit must be between 1 and 1000000, not %d", s.limit)
	}
	for _, f := range []struct {
		name, text string
		into       *time.Time
	}{{"since", s.since, &s.Since}, {"until", s.until, &s.Until}} {
		var ok bool
		if *f.into, ok = moment(f.text, time.Now()); !ok {
			return usagef(cmd,
				"--%s %q is neither a time such as 2030-01-02T15:04:05Z nor a duration such as 2h", f.name, f.text)
		}
	}
	return nil
}

// show prints the newest entries and, with --follow, new ones until ctx ends.
func (s *auditSearch) show(ctx context.Context, env *environment, c *client.Client) error {
	var (
		node uint64
		err  error
	)
	if s.follow && s.Node != "" { // events contain the number
		if node, err = memberID(ctx, c, s.Node); err != nil {
			return err
		}
	}
	entries, last, err := newest(ctx, c, s.AuditQuery, s.limit)
	if err != nil {
		return err
	}
	if !s.follow {
		return list(env, entries,
			[]string{"AT", "ID", "ACTION", "OBJECT", "ACTOR", "NODE", "FROM", "OUTCOME", "DETAIL"},
			func(x client.Event) []any {
				return []any{x.At, x.ID(), x.Action, x.Object, x.Actor, x.NodeID, x.Remote, x.Outcome, x.Detail}
			})
	}
	for _, x := range entries {
		if err := env.event(x); err != nil {
			return err
		}
	}
	return env.watch(ctx, c, client.WatchOptions{After: last},
		func(x client.Event) bool { return selects(s.AuditQuery, node, x) })
}

// moment parses a time (RFC 3339) or a duration before now; an empty text gives the zero time.
func moment(text string, now time.Time) (time.Time, bool) {
	if text == "" {
		return time.Time{}, true
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), true
	}
	t, err := time.Parse(time.RFC3339, text)
	return t, err == nil
}

// newest returns the newest entries, oldest first, and the position after the last one.
func newest(ctx context.Context, c *client.Client, q client.AuditQuery, limit int) (all []client.Event, last string,
	err error) {
	end, err := c.Audit(ctx, client.AuditQuery{Descending: true, Limit: 1})
	if err != nil {
		return nil, "", err
	}
	if len(end.Entries) > 0 {
		last = end.Entries[0].ID()
	}
	q.Descending = true
	for len(all) < limit {
		q.Limit = min(1000, limit-len(all))
		page, err := c.Audit(ctx, q)
		if err != nil {
			return nil, "", err
		}
		for _, x := range page.Entries {
			if len(all) > 0 || last == "" || !later(x, end.Entries[0]) {
				all = append(all, x)
			}
		}
		if page.Next == "" {
			break
		}
		q.After = page.Next
	}
	slices.Reverse(all)
	return all, last, nil
}

func later(a, b client.Event) bool {
	return a.Revision > b.Revision || a.Revision == b.Revision && a.Seq > b.Seq
}

// selects reports whether the server would list an entry for a query; node is the number of the query's member.
func selects(q client.AuditQuery, node uint64, x client.Event) bool {
	return (q.Since.IsZero() || !x.At.Before(q.Since.Truncate(time.Second))) &&
		(q.Until.IsZero() || !x.At.After(q.Until)) &&
		(q.Actor == "" || x.Actor == q.Actor || strings.HasPrefix(x.Actor, q.Actor+" (") || strings.HasSuffix(x.Actor,
			"("+q.Actor+")")) &&
		strings.HasPrefix(x.Action, q.Action) && (q.Object == "" || x.Object == q.Object) &&
		(node == 0 || x.NodeID == node)
}
