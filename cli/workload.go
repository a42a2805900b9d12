package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"muster/certs"
	"muster/cli/console"
	"muster/client"
)

const socketWithin = 10 * time.Second // for an answer of the Workload API

func newWorkloadCommand(env *environment) *cobra.Command {
	group := newGroup("workload", "Register software for identities, and fetch them")
	group.AddCommand(newWorkloadCreateCommand(env), newWorkloadListCommand(env), newWorkloadShowCommand(env),
		newWorkloadDeleteCommand(env), newWorkloadFetchCommand(env), newWorkloadJWTCommand(env))
	return group
}

func newWorkloadCreateCommand(env *environment) *cobra.Command {
	var r client.WorkloadRequest
	var member string
	cmd := &cobra.Command{
		Use:   "create PATH",
		Short: "Register software: a process that matches every selector gets spiffe://CLUSTER-ID/PATH",
		Long: `Register software. A process on a member's machine that matches every given selector gets the identity
spiffe://CLUSTER-ID/PATH from that member's Workload API ("serve --spiffe-socket").

Repeating a registration changes nothing.`,
		Args: exactly("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.Path = args[0]; r.User == "" && r.Group == "" && r.Unit == "" {
				return usagef(cmd, "one of --user, --group and --unit is missing")
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			if member != "" {
				if r.NodeID, err = memberID(cmd.Context(), c, member); err != nil {
					return err
				}
			}
			w, err := c.CreateWorkload(cmd.Context(), r)
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(w)
			}
			if _, err := fmt.Fprintln(env.stdout, w.SPIFFEID); err != nil {
				return err
			}
			env.say("workload %s is registered", w.ID)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.User, "user", "", "Unix user, by name or number")
	flags.StringVar(&r.Group, "group", "", "Unix group, by name or number; supplementary groups count")
	flags.StringVar(&r.Unit, "unit", "", "systemd unit, such as postgresql.service")
	flags.StringVar(&member, "node", "", "only on this member: its number, name, UUID, address or host name "+
		"(default any)")
	flags.StringSliceVar(&r.Hosts, "host", nil, "DNS name or IP address to add to its certificates; repeatable")
	return cmd
}

func newWorkloadListCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List the registered workloads",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			workloads, err := c.Workloads(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, workloads, []string{"ID", "PATH", "NODE", "USER", "GROUP", "UNIT", "HOSTS", "CREATED"},
				func(w client.Workload) []any {
					return []any{w.ID, w.Path, w.NodeID, w.User, w.Group, w.Unit, strings.Join(w.Hosts, ","), w.CreatedAt}
				})
		},
	}, env)
}

// workloadID returns the id of a registration, given by its id or its unambiguous path.
func workloadID(ctx context.Context, c *client.Client, text string) (string, error) {
	if !strings.HasPrefix(text, "/") {
		return text, nil
	}
	workloads, err := c.Workloads(ctx)
	if err != nil {
		return "", err
	}
	id := ""
	for _, w := range workloads {
		if w.Path == text && id != "" {
			return "", fmt.Errorf("several workloads have the path %s; give the id", text)
		}
		if w.Path == text {
			id = w.ID
		}
	}
	if id == "" {
		return "", fmt.Errorf("there is no workload %q", text)
	}
	return id, nil
}

func newWorkloadShowCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "show ID|PATH",
		Short: "Show one registered workload",
		Args:  exactly("ID|PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			id, err := workloadID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			w, err := c.Workload(cmd.Context(), id)
			if err != nil {
				return missing(err, "workload", args[0])
			}
			if env.output == "json" {
				return env.json(w)
			}
			return env.table([]string{"FIELD", "VALUE"}, [][]any{{"id", w.ID}, {"SPIFFE ID", w.SPIFFEID}, {"node", w.NodeID},
				{"user", w.User}, {"group", w.Group}, {"unit", w.Unit}, {"hosts", strings.Join(w.Hosts, ",")},
				{"created by", w.CreatedBy}, {"created", w.CreatedAt}})
		},
	}, env)
}

func newWorkloadDeleteCommand(env *environment) *cobra.Command {
	var yes bool
	return yesFlag(&cobra.Command{
		Use:   "delete ID|PATH",
		Short: "Delete a registration: its identity is no longer issued or renewed",
		Args:  exactly("ID|PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			id, err := workloadID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := env.confirm(yes, "delete workload %s? Its software gets no more identities", args[0]); err != nil {
				return err
			}
			if err := c.DeleteWorkload(cmd.Context(), id); err != nil {
				return missing(err, "workload", args[0])
			}
			return env.done("workload %s is deleted", args[0])
		},
	}, &yes)
}

// socketFlag adds the flag for the socket of the Workload API.
func socketFlag(cmd *cobra.Command, socket *string) *cobra.Command {
	cmd.Flags().StringVar(socket, "socket", "", "the Workload API's Unix socket (default: "+workloadapi.SocketEnv+")")
	return cmd
}

// workloadAPI connects to the Workload API of the member on this machine.
func workloadAPI(ctx context.Context, cmd *cobra.Command, socket string) (*workloadapi.Client, error) {
	address := os.Getenv(workloadapi.SocketEnv)
	if socket != "" {
		address = "unix://" + strings.TrimPrefix(socket, "unix://")
	}
	if address == "" {
		return nil, usagef(cmd, "--socket is missing, and %s is not set", workloadapi.SocketEnv)
	}
	return workloadapi.New(ctx, workloadapi.WithAddr(address))
}

// workloadError explains an error of the Workload API.
func workloadError(err error) error {
	switch grpcstatus.Code(err) {
	case codes.PermissionDenied:
		return errors.New("this process has no identity: it matches no registered workload (\"muster workload list\")")
	case codes.Unavailable:
		return fmt.Errorf("the Workload API does not answer: %s", grpcstatus.Convert(err).Message())
	case codes.DeadlineExceeded:
		return errors.New("the Workload API does not answer in time")
	case codes.Unknown:
		return err
	}
	return errors.New(grpcstatus.Convert(err).Message())
}

func newWorkloadFetchCommand(env *environment) *cobra.Command {
	var socket, dir, id string
	var watch bool
	cmd := &cobra.Command{
		Use:   "fetch [--write DIR]",
		Short: "Get the certificates of the calling process, and write them to files",
		Long: `Get the certificates of the calling process from the Workload API of the member on this machine.

With --write DIR it writes svid.pem (the certificate chain), svid_key.pem (0600), bundle.pem (to verify others of this
cluster), and bundle-DOMAIN.pem for each peer. With --watch it keeps running and writes them again before they expire
and whenever they change; svid.pem is written last.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch && dir == "" {
				return usagef(cmd, "--watch goes with --write")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			c, err := workloadAPI(ctx, cmd, socket)
			if err != nil {
				return err
			}
			defer c.Close()
			w := svidWriter{env: env, dir: dir, id: id}
			if watch {
				err := c.WatchX509Context(ctx, &w)
				if ctx.Err() != nil {
					return nil
				}
				return workloadError(err)
			}
			ctx, cancel := context.WithTimeout(ctx, socketWithin)
			defer cancel()
			x, err := c.FetchX509Context(ctx)
			if err != nil {
				return workloadError(err)
			}
			if dir != "" {
				return w.write(x)
			}
			return list(env, x.SVIDs, []string{"SPIFFE ID", "EXPIRES"}, func(s *x509svid.SVID) []any {
				return []any{s.ID, s.Certificates[0].NotAfter}
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "write", "", "directory for the files; it must exist")
	flags.StringVar(&id, "id", "", "SPIFFE ID to fetch, if the process has several (default: the first)")
	flags.BoolVar(&watch, "watch", false, "keep running and renew the files, until Ctrl-C or SIGTERM")
	return socketFlag(cmd, &socket)
}

// svidWriter writes an identity to files.
type svidWriter struct {
	env     *environment
	dir, id string
}

// OnX509ContextUpdate writes a changed identity.
func (w *svidWriter) OnX509ContextUpdate(x *workloadapi.X509Context) {
	if err := w.write(x); err != nil {
		w.env.complain(err.Error())
	}
}

// OnX509ContextWatchError reports why there is no update; the client retries by itself.
func (w *svidWriter) OnX509ContextWatchError(err error) {
	if grpcstatus.Code(err) != codes.Canceled {
		w.env.complain(workloadError(err).Error())
	}
}

func (w *svidWriter) write(x *workloadapi.X509Context) error {
	s := x.DefaultSVID()
	if w.id != "" {
		s = nil
		for _, other := range x.SVIDs {
			if other.ID.String() == w.id {
				s = other
			}
		}
		if s == nil {
			return fmt.Errorf("this process does not have the identity %s", w.id)
		}
	}
	chain, key, err := s.Marshal()
	if err != nil {
		return err
	}
	for _, b := range x.Bundles.Bundles() {
		name := "bundle-" + b.TrustDomain().Name() + ".pem"
		if b.TrustDomain() == s.ID.TrustDomain() {
			name = "bundle.pem"
		}
		text, err := b.Marshal()
		if err != nil {
			return err
		}
		if err := certs.WriteFile(filepath.Join(w.dir, name), text, 0o644); err != nil {
			return err
		}
	}
	if err := certs.WriteFile(filepath.Join(w.dir, "svid_key.pem"), key, 0o600); err != nil {
		return err
	}
	if err := certs.WriteFile(filepath.Join(w.dir, "svid.pem"), chain, 0o644); err != nil {
		return err
	}
	return w.env.done("%s is written to %s; it expires at %s", s.ID, w.dir, console.Cell(s.Certificates[0].NotAfter))
}

func newWorkloadJWTCommand(env *environment) *cobra.Command {
	var socket, id string
	var audience []string
	cmd := &cobra.Command{
		Use:   "jwt --audience AUDIENCE",
		Short: "Get a JWT-SVID of the calling process, and print it",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(audience) == 0 {
				return usagef(cmd, "--audience is missing")
			}
			p := jwtsvid.Params{Audience: audience[0], ExtraAudiences: audience[1:]}
			if id != "" {
				var err error
				if p.Subject, err = spiffeid.FromString(id); err != nil {
					return usagef(cmd, "--id is not a SPIFFE ID")
				}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), socketWithin)
			defer cancel()
			c, err := workloadAPI(ctx, cmd, socket)
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.FetchJWTSVID(ctx, p)
			if err != nil {
				return workloadError(err)
			}
			return env.secret(map[string]any{"spiffeId": s.ID.String(), "token": s.Marshal(), "expiresAt": s.Expiry},
				s.Marshal(), "%s until %s", s.ID, console.Cell(s.Expiry))
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&audience, "audience", nil, "for whom it is; repeatable")
	flags.StringVar(&id, "id", "", "SPIFFE ID to fetch, if the process has several (default: the first)")
	return socketFlag(cmd, &socket)
}
