package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

// backupPath returns the place of a backup: a path on its member, or an object in a bucket.
func backupPath(b client.Backup) string {
	if b.File == "" {
		return ""
	}
	return strings.TrimSuffix(b.Target, "/") + "/" + b.File
}

// backupRow returns the cells of a backup in the table.
func backupRow(b client.Backup) []any {
	where := backupPath(b)
	switch {
	case b.State == "good" && !b.Present:
		where += " (its member was removed)"
	case b.State == "failed":
		where = b.Reason
	}
	size, took := "", ""
	if b.Bytes > 0 {
		size = console.Bytes(b.Bytes)
	}
	if b.FinishedAt != nil {
		took = b.FinishedAt.Sub(b.StartedAt).String()
	}
	return []any{b.ID, b.State, b.StartedAt, took, b.NodeID, size, b.Revision, where}
}

func newBackupListCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List the backups that members have made by themselves",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			all, err := c.Backups(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, all, []string{"ID", "STATE", "STARTED", "TOOK", "MEMBER", "SIZE", "REVISION", "FILE"}, backupRow)
		},
	}, env)
}

func newBackupStatusCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "status",
		Short: "Show the state of the backups; the exit status is 1 when something needs attention",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			s, err := c.BackupStatus(cmd.Context())
			if err != nil {
				return err
			}
			if env.output == "json" {
				err = env.json(s)
			} else {
				err = env.backupStatus(&s)
			}
			if err == nil && len(s.Problems) > 0 {
				err = errors.New(s.Problems[0])
			}
			return err
		},
	}, env)
}

func (e *environment) backupStatus(s *client.BackupStatus) error {
	often := "never"
	if n := s.Settings.IntervalSeconds; n > 0 {
		often = (time.Duration(n) * time.Second).String()
	}
	good, next, active := "", time.Time{}, ""
	if s.LastGood != nil {
		good = fmt.Sprintf("%s, node %d", console.Cell(s.LastGood.StartedAt), s.LastGood.NodeID)
	}
	if s.NextAt != nil {
		next = *s.NextAt
	}
	if s.Active != nil {
		active = s.Active.ID
	}
	for _, problem := range s.Problems {
		e.say("%s", problem)
	}
	return e.table([]string{"EVERY", "WHERE", "RECIPIENTS", "LAST GOOD", "NEXT", "RUNNING"},
		[][]any{{often, s.Settings.Directory, len(s.Settings.Recipients), good, next, active}})
}

func newBackupRunCommand(env *environment) *cobra.Command {
	var detach bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Let a member make a backup now, as the settings say",
		Long: `Let a member make a backup now, and wait for it. If a backup is already being made, wait for that one.
The exit status is 0 when the backup is good and 1 when it failed.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			b, err := c.RunBackup(cmd.Context())
			if err != nil {
				return err
			}
			if !detach {
				ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
				defer cancel()
				b, err = during(env, "backup "+b.ID+" is being made", func() (client.Backup, error) {
					return c.AwaitBackup(ctx, b.ID)
				})
				if err != nil {
					return fmt.Errorf("backup %s is still under way: %w", b.ID, err)
				}
			}
			return env.backupResult(b)
		},
	}
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait for it")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Hour, "how long to wait for it")
	return cmd
}

func (e *environment) backupResult(b client.Backup) error {
	switch {
	case e.output == "json":
		if err := e.json(b); err != nil || b.State != "failed" {
			return err
		}
		return fmt.Errorf("backup %s failed: %s", b.ID, b.Reason)
	case b.State == "failed":
		return fmt.Errorf("backup %s failed: %s", b.ID, b.Reason)
	case b.State == "good":
		e.say("backup %s is good: %s on node %d, %s", b.ID, backupPath(b), b.NodeID, console.Bytes(b.Bytes))
	default:
		e.say("backup %s is running", b.ID)
	}
	return nil
}

func newBackupGetCommand(env *environment) *cobra.Command {
	var o client.SnapshotOptions
	var yes bool
	cmd := &cobra.Command{
		Use:   "get ID FILE",
		Short: "Fetch a backup that a member holds, through any member; - writes to stdout",
		Args:  exactly("ID", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.anybody()
			if err != nil {
				return err
			}
			s, err := c.Survey(cmd.Context())
			if err != nil {
				return err
			}
			o.Stale = o.Stale || !s.Leader // a replica serves the same file
			save := func(ctx context.Context, w io.Writer, o client.SnapshotOptions) (int64, error) {
				n, err := c.SaveBackup(ctx, w, args[0], o)
				return n, missing(err, "backup", args[0])
			}
			if args[1] == "-" {
				_, err := save(cmd.Context(), env.stdout, o)
				return err
			}
			if _, err := os.Stat(args[1]); err == nil {
				if err := env.confirm(yes, "%s exists; overwrite it?", args[1]); err != nil {
					return err
				}
			}
			return env.saveFile(cmd.Context(), save, args[1], o)
		},
	}
	cmd.Flags().BoolVar(&o.Stale, "stale", false, "ask the member itself, without a leader")
	return yesFlag(cmd, &yes)
}

func newBackupVerifyCommand(env *environment) *cobra.Command {
	var identities []string
	cmd := &cobra.Command{
		Use:   "verify ID|FILE",
		Short: "Verify a backup: a file on this machine, or one that a member holds",
		Long: `Verify a backup. A FILE on this machine is decrypted, checked and restored into a scratch database, and
every sealed value is opened: that takes --identity, with the recipient's identity or the node.key of a member at the
time of the backup. For a backup on a member, that member compares the file's digest with its record, and restores an
unencrypted file into a scratch database, too. The exit status is 0 when the backup is good and 1 when it is not.`,
		Args: exactly("ID or FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err == nil || args[0] == "-" || len(identities) > 0 {
				return env.verifyFile(cmd.Context(), args[0], identities)
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			check, err := during(env, "its holder reads it", func() (client.BackupCheck, error) {
				return c.VerifyBackup(cmd.Context(), args[0])
			})
			switch {
			case err != nil:
				return missing(err, "backup", args[0])
			case !check.OK:
				return fmt.Errorf("backup %s is not what it was: %s", args[0], check.Reason)
			case check.Restored:
				return env.done("backup %s is intact and can be restored", args[0])
			}
			return env.done("backup %s is unchanged; its member lacks the identity to open it: get the file and give --identity",
				args[0])
		},
	}
	cmd.Flags().StringArrayVar(&identities, "identity", nil, "age identity that opens the backup; repeatable")
	return cmd
}

// verifyFile checks a backup file on this machine completely, as a restore would.
func (e *environment) verifyFile(ctx context.Context, name string, identities []string) error {
	b, err := e.openBackup(ctx, name, identities)
	if err != nil {
		return err
	}
	defer b.close()
	if len(b.identities) == 0 {
		return e.done("%s is intact: checksums, format and database; with --identity, its sealed values are checked, too",
			name)
	}
	err = console.While(e.stderr, "restoring it on trial", func() error { return b.Rehearse(ctx, b.identities...) })
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return e.done("%s is intact, can be restored, and opens with this identity: cluster %s, revision %d, made %s", name,
		b.Meta.ClusterID, b.Meta.Index, console.Cell(b.Meta.CreatedAt))
}
