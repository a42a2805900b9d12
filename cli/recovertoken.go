package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"muster/certs"
	"muster/client"
	"muster/cluster/datadir"
	"muster/store"
)

func newRecoverTokenCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "token --data DIR",
		Short: "Make a new management token, as the owner of a member's files",
		Long: `Make a new API token with the scope management, and print it alone on stdout. That needs no token: the owner of
a member's files may run it, on that member's machine. A running member makes the token at once, through the leader. If
the member is stopped, or there is no leader, the request waits in DIR: the token works as soon as the member runs and
there is a leader. The audit records the host and the member.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if env.data == "" {
				return usagef(cmd, "--data is missing")
			}
			o, err := datadir.OpenOwned(env.data)
			if err != nil {
				return err
			}
			secret := certs.NewSecret()
			q := datadir.TokenRequest{ID: store.NewID(), Hash: certs.HashSecret(secret)}
			q.Host, q.User = hostAndUser()
			if err := makeToken(cmd.Context(), env, o, q); err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.stdout, secret)
			return err
		},
	}
}

// makeToken has the member make the token, or leaves the request for it.
func makeToken(ctx context.Context, env *environment, o *datadir.Owned, q datadir.TokenRequest) error {
	why := "the member does not run"
	if o.Running() {
		tctx, cancel := context.WithTimeout(ctx, 8*time.Second)
		err := o.MakeToken(tctx, q)
		cancel()
		var refused *datadir.RefusedError
		switch {
		case err == nil:
			env.say("made the management token %s, as the owner of the files of node %d", q.ID, o.NodeID())
			return nil
		case errors.As(err, &refused):
			return fmt.Errorf("the token was not made: %s", refused.Reason)
		}
		why = "the member cannot have it made now"
	}
	if err := o.Leave(q); err != nil {
		return err
	}
	env.say("%s: the request waits in %s; the token %s works as soon as the member runs and there is a leader", why,
		env.data, q.ID)
	return nil
}

func hostAndUser() (host, name string) {
	host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		return host, u.Username
	}
	return host, fmt.Sprint(os.Geteuid())
}

// saver makes a backup: through the API, or as the owner of a member's files.
type saver func(ctx context.Context, w io.Writer, o client.SnapshotOptions) (int64, error)

// saver finds out how a backup is made. On the machine of a member its owner needs no token, and with --stale no member
// that runs.
func (e *environment) saver() (saver, error) {
	c, err := e.anybody()
	if err != nil {
		return nil, err
	}
	if e.data == "" || len(e.addrs) > 0 {
		return c.SaveSnapshot, nil
	}
	o, err := datadir.OpenOwned(e.data)
	switch {
	case err != nil && e.tokenless:
		return nil, err
	case err != nil:
		return c.SaveSnapshot, nil
	}
	host, name := hostAndUser()
	return func(ctx context.Context, w io.Writer, opts client.SnapshotOptions) (int64, error) {
		runs := o.Running()
		switch {
		case !runs && opts.Stale:
			out := &counter{w: w}
			err := o.BackupStopped(out, opts.Recipient, Version)
			return out.n, err
		case !runs:
			return 0, errors.New("the member of this directory does not run: start it, or save its replica with --stale")
		case !e.tokenless:
			return c.SaveSnapshot(ctx, w, opts)
		}
		return o.Backup(ctx, w, opts.Stale, opts.Recipient, host, name)
	}, nil
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
