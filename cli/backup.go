package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"muster/certs"
	"muster/cli/console"
	"muster/client"
	"muster/cluster/datadir"
	"muster/node"
	"muster/store"
)

func newBackupCommand(env *environment) *cobra.Command {
	group := newGroup("backup", "Save, inspect and restore backups of the cluster")
	group.AddCommand(newBackupSaveCommand(env), newBackupRestoreCommand(env), newBackupInspectCommand(env),
		newBackupListCommand(env), newBackupStatusCommand(env), newBackupRunCommand(env), newBackupGetCommand(env),
		newBackupVerifyCommand(env))
	return group
}

func newBackupSaveCommand(env *environment) *cobra.Command {
	var o client.SnapshotOptions
	var recipient string
	var yes bool
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the whole state; - writes to stdout",
		Long: `Save the whole state as a gzip'ed tar. Its secrets stay sealed: the node.key of a member at the time of the
backup opens them. With --recipient the whole file is encrypted to an age recipient, whose identity opens everything in
it; that identity is enough to found the cluster again after every member has been lost.

On the machine of a member, --data DIR is enough: the owner of the files of a member needs no token. With --stale the
member need not run: the command copies its replica.`,
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			save, err := env.saver()
			if err != nil {
				return err
			}
			o.Recipient = recipient
			if args[0] == "-" {
				_, err := saveBackup(cmd.Context(), env, save, env.stdout, o)
				return orStale(err, o)
			}
			if _, err := os.Stat(args[0]); err == nil {
				if err := env.confirm(yes, "%s exists; overwrite it?", args[0]); err != nil {
					return err
				}
			}
			return orStale(env.saveFile(cmd.Context(), save, args[0], o), o)
		},
	}
	cmd.Flags().BoolVar(&o.Stale, "stale", false,
		"save the contacted member's replica; works without a leader, and with --data without a running member")
	cmd.Flags().StringVar(&recipient, "recipient", "",
		"encrypt the backup, keys included, to this age recipient (age1…)")
	return yesFlag(cmd, &yes)
}

// orStale adds to the error of a missing leader that a backup can be had without one.
func orStale(err error, o client.SnapshotOptions) error {
	if errors.Is(err, client.ErrNoLeader) && !o.Stale {
		return fmt.Errorf("%w: with --stale the contacted member saves its own copy", err)
	}
	return err
}

// saveFile saves a backup; the file gets its name only when it is complete.
func (e *environment) saveFile(ctx context.Context, save saver, name string, o client.SnapshotOptions) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".backup-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	size, err := saveBackup(ctx, e, save, f, o)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return e.done("saved %s to %s", console.Bytes(size), name)
}

func saveBackup(ctx context.Context, env *environment, save saver, w io.Writer, o client.SnapshotOptions) (int64,
	error) {
	o.Progress = console.Transfer(env.stderr, "received")
	if o.Recipient == "" {
		return save(ctx, w, o)
	}
	to, err := age.ParseX25519Recipient(o.Recipient)
	if err != nil {
		return 0, errors.New("--recipient must be an age X25519 recipient (age1…)")
	}
	sealed, err := age.Encrypt(w, to)
	if err != nil {
		return 0, err
	}
	size, err := save(ctx, sealed, o)
	return size, errors.Join(err, sealed.Close())
}

// backupFile is a backup on this machine, decrypted and checked.
type backupFile struct {
	*store.Archive
	identities []*age.X25519Identity
	dir        string
}

func (b *backupFile) close() { _ = os.RemoveAll(b.dir) }

// openBackup reads a backup into a temporary directory, decrypts it if necessary, and checks it.
func (e *environment) openBackup(ctx context.Context, name string, identityFiles []string) (_ *backupFile, err error) {
	b := &backupFile{}
	for _, file := range identityFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--identity: %w", err)
		}
		id, err := certs.ParseIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("--identity %s is not an age identity: %w", file, err)
		}
		b.identities = append(b.identities, id)
	}
	in := io.Reader(e.stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	if b.dir, err = os.MkdirTemp("", "muster-backup-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	buffered := bufio.NewReader(in)
	in = buffered
	if head, _ := buffered.Peek(len(ageHeader)); string(head) == ageHeader {
		if len(b.identities) == 0 {
			return nil, fmt.Errorf("%s is encrypted: give the identity of its recipient with --identity FILE",
				name)
		}
		var ids []age.Identity
		for _, id := range b.identities {
			ids = append(ids, id)
		}
		if in, err = age.Decrypt(buffered, ids...); err != nil {
			return nil, fmt.Errorf("%s cannot be decrypted with this identity", name)
		}
	}
	if b.Archive, err = store.ReadArchive(ctx, in, b.dir,
		store.ArchiveLimits{State: store.MaxArchiveState}); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

const ageHeader = "age-encryption.org/v1"

// backupSummary is the output of inspect.
type backupSummary struct {
	store.ArchiveMeta
	Openable bool // the given identities open its keys
	Keys     int  // wraps of data-encryption keys next to the state
}

func newBackupInspectCommand(env *environment) *cobra.Command {
	var identities []string
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Check a backup and describe its content; - reads stdin",
		Args:  exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := env.openBackup(cmd.Context(), args[0], identities)
			if err != nil {
				return err
			}
			defer b.close()
			deks, err := b.Unlock(cmd.Context(), b.identities...)
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(backupSummary{ArchiveMeta: b.Meta, Keys: len(b.Keys), Openable: len(deks) > 0})
			}
			m := b.Meta
			env.say("the backup is intact: checksums, format and database")
			if err := env.table([]string{"CLUSTER", "REVISION", "MADE", "BY NODE", "VERSION", "SCHEMA", "STATE"},
				[][]any{{m.ClusterID, m.Index, m.CreatedAt, m.NodeID, m.Binary, m.Schema,
					console.Bytes(m.Size)}}); err != nil {
				return err
			}
			fmt.Fprintln(env.stdout)
			return list(env, m.Members, []string{"NODE", "NAME", "ROLE", "ADDRESS", "ID"},
				func(x store.ArchiveMember) []any {
					return []any{x.NodeID, x.Name, string(x.Role), x.Address, x.ID}
				})
		},
	}
	cmd.Flags().StringArrayVar(&identities, "identity", nil, "age identity of the backup's recipient")
	return cmd
}

func newBackupRestoreCommand(env *environment) *cobra.Command {
	var f serveFlags
	var identities []string
	var yes bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Restore a backup into the running cluster, or found a cluster from it with --data and an empty directory",
		Long: `Restore a backup of the same cluster into the running one: settings, tokens and secrets become what they were;
members, Raft, peerings, authorities and keys stay. All of it happens in one transaction, or nothing does.

With --data DIR and an empty or missing directory, it founds a cluster from the backup instead: the same cluster with
all its contents and a single new member, for use after the loss of every member. Then "muster serve --data DIR" starts
it. That needs --identity: the node.key of a member in the backup, or the identity of its recipient.`,
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := env.openBackup(cmd.Context(), args[0], identities)
			if err != nil {
				return err
			}
			defer b.close()
			if env.data != "" {
				_, err := os.Stat(filepath.Join(env.data, "node.json"))
				if errors.Is(err, fs.ErrNotExist) {
					f.data = env.data
					return foundFromBackup(cmd.Context(), env, b, f, yes)
				}
			}
			return restoreBackup(cmd.Context(), env, b, yes)
		},
	}
	flags := cmd.Flags()
	yesFlag(cmd, &yes)
	flags.StringArrayVar(&identities, "identity", nil, "age identity that opens the backup; repeatable")
	flags.StringVar(&f.Name, "name", "", "founding: name of the new member (default: the host name)")
	flags.StringVar(&f.API, "api", "127.0.0.1:5000", "founding: address of the API listener")
	flags.StringVar(&f.Raft, "raft", "127.0.0.1:7000", "founding: address of the cluster listener")
	flags.StringVar(&f.advertise, "advertise", "", "founding: host or IP address at which others reach this member")
	return cmd
}

// restoreBackup sends the archive. With an identity it first wraps the keys for the present Raft servers, so that none
// of them needs to have been a member at the time of the backup.
func restoreBackup(ctx context.Context, env *environment, b *backupFile, yes bool) error {
	c, err := env.client(ctx)
	if err != nil {
		return err
	}
	deks, err := b.Unlock(ctx, b.identities...)
	if err != nil {
		return err
	}
	if len(deks) > 0 {
		recipients, err := recipientsNow(ctx, c)
		if err != nil {
			return err
		}
		if err := b.Rewrap(deks, recipients); err != nil {
			return err
		}
	} else {
		b.Keys = nil
	}
	if err := env.confirm(yes, "replace settings, tokens and secrets of cluster %s by those of revision %d, made %s?",
		b.Meta.ClusterID, b.Meta.Index, b.Meta.CreatedAt.Format(time.RFC3339)); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(b.dir, "send"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := store.WriteArchive(f, b.Meta, b.State, b.Keys); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	changes, err := c.RestoreSnapshot(ctx, f, size, console.Transfer(env.stderr, "sent"))
	if err != nil {
		return err
	}
	return env.done("restored revision %d: %s", b.Meta.Index, changes)
}

// recipientsNow lists the public keys of the Raft servers.
func recipientsNow(ctx context.Context, c *client.Client) (list []string, err error) {
	members, err := c.Members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if m.Role == "member" { // outside Raft: it never leads
			continue
		}
		one, err := c.Member(ctx, m.NodeID)
		if err != nil {
			return nil, err
		}
		list = append(list, one.Recipient)
	}
	return list, nil
}

func foundFromBackup(ctx context.Context, env *environment, b *backupFile, f serveFlags, yes bool) error {
	apiAddr, raftAddr, err := f.addresses()
	if err != nil {
		return err
	}
	if len(b.identities) == 0 {
		return fmt.Errorf("founding a cluster in %s from a backup needs --identity: "+
			"the node.key of a member in it, or the identity of its recipient", f.data)
	}
	if f.Name == "" {
		f.Name = node.HostName()
	}
	if err := env.confirm(yes,
		"found cluster %s again in %s from revision %d, made %s? Its old members must never be started again",
		b.Meta.ClusterID, f.data, b.Meta.Index, b.Meta.CreatedAt.Format(time.RFC3339)); err != nil {
		return err
	}
	dir, err := datadir.Open(f.data)
	if err != nil {
		return err
	}
	defer dir.Close()
	self, err := datadir.Refound(ctx, dir, b.Archive, b.identities, datadir.Plan{
		Name:        f.Name,
		Mode:        store.ModeFull,
		APIAddress:  apiAddr,
		RaftAddress: raftAddr,
		Version:     Version,
	}, time.Now())
	if err != nil {
		return err
	}
	return env.done("%s is node %d of cluster %s; start it with: muster serve --data %s --api %s --raft %s", f.data,
		self.NodeID, self.ClusterID, f.data, f.API, f.Raft)
}
