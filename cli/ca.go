package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
	"muster/store"
)

const caPoll = 300 * time.Millisecond

var rotatedKinds = []string{"http", "transport", "workload", "all"}

func newCACommand(env *environment) *cobra.Command {
	group := newGroup("ca", "Show and rotate the certificate authorities of the cluster")
	group.AddCommand(newCAStatusCommand(env), newCARotateCommand(env))
	return group
}

func newCAStatusCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "status",
		Short: "Show the certificate authorities and the progress of a rotation",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			kinds, err := c.CA(cmd.Context())
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(kinds)
			}
			var rows [][]any
			for _, k := range kinds {
				for _, g := range k.Generations {
					phase := ""
					if k.Rotation != nil && g.Generation == k.Rotation.New {
						phase = k.Rotation.Phase
					}
					rows = append(rows, []any{k.Kind, g.Generation, g.State, phase, g.Origin, g.DaysLeft, g.NotAfter,
						g.Fingerprint})
				}
			}
			if err := env.table([]string{"KIND", "GENERATION", "STATE", "ROTATION", "ORIGIN", "DAYS", "EXPIRES",
				"FINGERPRINT"}, rows); err != nil {
				return err
			}
			for _, k := range kinds {
				for _, line := range caProgress(k) {
					env.say("%s", console.Printable(line))
				}
				if k.RotationAdvised != "" {
					env.say("%s", console.Printable(fmt.Sprintf("%s: a rotation is advised: %s", k.Kind, k.RotationAdvised)))
				}
			}
			return nil
		},
	}, env)
}

// caProgress describes in sentences what a rotation waits for.
func caProgress(k client.CAKind) (lines []string) {
	r := k.Rotation
	if r == nil {
		return nil
	}
	what := map[string]string{"trust": "waits until every member trusts",
		"issue": "waits until every member has a certificate of"}[r.Phase]
	switch {
	case r.DropAt != nil:
		lines = append(lines,
			fmt.Sprintf("%s: every member has a certificate of generation %d; generation %d is dropped at %s", k.Kind,
				r.New, r.Old, console.Cell(*r.DropAt)))
	default:
		lines = append(lines, fmt.Sprintf("%s: %s generation %d", k.Kind, what, r.New))
	}
	for _, p := range r.Pending {
		lines = append(lines, fmt.Sprintf("%s: node %d (%s) %s", k.Kind, p.NodeID, p.Name, p.Reason))
	}
	return lines
}

// caRotation is one run of "muster ca rotate".
type caRotation struct {
	client.CARequest
	overlap           time.Duration
	rollback, drop    bool
	noWait, yes       bool
	certFile, keyFile string
}

func newCARotateCommand(env *environment) *cobra.Command {
	var r caRotation
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Rotate to a new certificate authority, or roll the rotation back",
		Long: `Make a new certificate authority, or bring your own, and hand over to it in phases: first every member trusts
it, then it issues and every member gets new certificates, and after the overlap the old one is dropped. No connection
fails meanwhile; clients and join tokens that know only the old CA work until it is dropped.

The cluster continues by itself. The command waits until every member has new certificates.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := r.check(cmd); err != nil {
				return err
			}
			for _, f := range []struct {
				name string
				into *string
			}{{r.certFile, &r.CertPEM}, {r.keyFile, &r.KeyPEM}} {
				var err error
				if *f.into, err = readCA(f.name); err != nil {
					return err
				}
			}
			return r.run(cmd.Context(), env)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.Kind, "kind", "all", "http, transport, workload (identities of software) or all")
	flags.BoolVar(&r.DryRun, "dry-run", false, "print the steps and change nothing")
	flags.DurationVar(&r.overlap, "overlap", 24*time.Hour,
		"how long the old CA stays trusted once every member has new certificates, at most 2160h")
	flags.BoolVar(&r.rollback, "rollback", false, "roll the running rotation back")
	flags.BoolVar(&r.drop, "drop", false, "drop the old CA now, before the overlap is over")
	flags.BoolVar(&r.Force, "force", false, "continue without the pending members")
	flags.StringVar(&r.certFile, "cert", "",
		"file with your own CA certificate (PEM), followed by the certificates of the authorities above it")
	flags.StringVar(&r.keyFile, "key", "", "file with its private key (PEM, not encrypted)")
	flags.BoolVar(&r.noWait, "no-wait", false, "do not wait; the cluster continues by itself")
	complete(cmd, "kind", rotatedKinds...)
	return yesFlag(cmd, &r.yes)
}

// check rejects flags that exclude each other, and sets the action and the overlap.
func (r *caRotation) check(cmd *cobra.Command) error {
	switch {
	case !slices.Contains(rotatedKinds, r.Kind):
		return usagef(cmd, "--kind %q is none of %s", r.Kind, strings.Join(rotatedKinds, ", "))
	case r.rollback && (r.drop || r.Force):
		return usagef(cmd, "--rollback goes with neither --drop nor --force")
	case (r.rollback || r.drop || r.Force) && (r.certFile != "" || r.keyFile != ""):
		return usagef(cmd, "--cert and --key are for a new rotation")
	case (r.certFile == "") != (r.keyFile == ""):
		return usagef(cmd, "--cert and --key must be given together")
	case r.certFile != "" && r.Kind == "all":
		return usagef(cmd, "--cert is for one kind: give --kind http, transport or workload")
	case r.rollback:
		r.Action = "rollback"
	case r.drop:
		r.Action = "drop"
	case r.Force:
		r.Action = "continue"
	}
	if cmd.Flags().Changed("overlap") {
		r.Overlap = r.overlap.String()
	}
	return nil
}

// readCA reads a PEM file; without a name it returns an empty text.
func readCA(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("cannot read the CA: %w", err)
	}
	if blank(string(data)) {
		return "", fmt.Errorf("cannot read the CA: %s is empty", name)
	}
	return string(data), nil
}

// run sends the request, prints its steps, and blocks until every member has new certificates, unless told otherwise.
func (r *caRotation) run(ctx context.Context, env *environment) error {
	c, err := env.client(ctx)
	if err != nil {
		return err
	}
	if r.drop && !r.DryRun {
		if err := env.confirm(r.yes,
			"drop the old CA now? Members and clients without the new one are locked out"); err != nil {
			return err
		}
	}
	done, err := c.RotateCA(ctx, r.CARequest)
	if err != nil {
		return err
	}
	for _, w := range done.Warnings {
		env.say("%s", console.Printable("warning: "+w))
	}
	if env.output == "json" {
		if err := env.json(done); err != nil {
			return err
		}
	} else {
		for _, s := range done.Steps {
			env.say("%s", console.Printable(s))
		}
	}
	if r.DryRun {
		env.say("nothing was changed")
		return nil
	}
	if r.noWait || r.drop {
		return nil
	}
	return env.waitRotated(ctx, c)
}

// waitRotated blocks until every rotation waits only for its overlap, and reports on stderr what delays it.
func (e *environment) waitRotated(ctx context.Context, c *client.Client) error {
	said := ""
	for {
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		kinds, err := c.CA(asked)
		cancel()
		var refusal *client.Error
		if errors.As(err, &refusal) && refusal.Status < 500 {
			return err
		}
		if err == nil {
			busy := false
			var lines []string
			for _, k := range kinds {
				lines = append(lines, caProgress(k)...)
				busy = busy || k.Rotation != nil && k.Rotation.DropAt == nil
			}
			if text := strings.Join(lines, "\n"); text != said {
				said = text
				for _, line := range lines {
					e.say("%s", console.Printable(line))
				}
			}
			if !busy {
				return nil
			}
		}
		select {
		case <-time.After(caPoll):
		case <-ctx.Done():
			e.say("the rotation continues by itself; \"muster ca status\" shows it")
			return ctx.Err()
		}
	}
}

func newCertCommand(env *environment) *cobra.Command {
	group := newGroup("cert", "Show the certificates that the cluster has issued")
	group.AddCommand(newCertListCommand(env))
	return group
}

func newCertListCommand(env *environment) *cobra.Command {
	var f client.CertificateFilter
	var all bool
	var member string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the certificates in use, ordered by expiry",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.Kind != "" && !slices.Contains(store.CertificateKinds, f.Kind):
				return usagef(cmd, "--kind %q is none of %s", f.Kind, strings.Join(store.CertificateKinds, ", "))
			case cmd.Flags().Changed("limit") && (f.Limit < 1 || f.Limit > 10000):
				return usagef(cmd, "--limit must be between 1 and 10000, not %d", f.Limit)
			case f.ExpiresWithin < 0:
				return usagef(cmd, "--expires-within must not be negative")
			}
			f.Current = !all
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			if member != "" {
				if f.NodeID, err = memberID(cmd.Context(), c, member); err != nil {
					return err
				}
			}
			certificates, err := c.Certificates(cmd.Context(), f)
			if err != nil {
				return err
			}
			return list(env, certificates,
				[]string{"KIND", "NODE", "NAME", "CA", "DAYS", "EXPIRES", "ISSUED", "REVOKED", "SERIAL"},
				func(c client.Certificate) []any {
					var revoked time.Time
					if c.RevokedAt != nil {
						revoked = *c.RevokedAt
					}
					return []any{c.Kind, c.NodeID, c.Node, c.Authority, c.DaysLeft, c.ExpiresAt, c.IssuedAt, revoked,
						c.Serial}
				})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&member, "node", "", "certificates of this member: its number, name, UUID, address or host name")
	flags.StringVar(&f.Kind, "kind", "", "certificates of this kind: "+strings.Join(store.CertificateKinds, ", "))
	complete(cmd, "kind", store.CertificateKinds...)
	flags.DurationVar(&f.ExpiresWithin, "expires-within", 0, "certificates that expire within this time, such as 720h")
	flags.BoolVar(&all, "all", false, "include replaced and revoked certificates")
	flags.IntVar(&f.Limit, "limit", 0, "maximum number, up to 10000 (default 1000)")
	return staleFlag(cmd, env)
}
