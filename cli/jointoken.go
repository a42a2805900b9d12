package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/certs"
	"muster/cli/console"
	"muster/client"
	"muster/cluster/datadir"
	"muster/internal/addr"
)

func newJoinTokenCommand(env *environment) *cobra.Command {
	group := newGroup("join-token", "Make, list and revoke tokens for joining machines")
	group.AddCommand(newJoinTokenCreateCommand(env), newJoinTokenListCommand(env), newJoinTokenRevokeCommand(env),
		newJoinTokenKeyHashCommand(env))
	return group
}

func newJoinTokenCreateCommand(env *environment) *cobra.Command {
	var r client.JoinTokenRequest
	var labels []string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a join token; it alone is printed on stdout",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkJoinToken(cmd, r); err != nil {
				return err
			}
			var err error
			if r.Labels, err = parseLabels(cmd, labels); err != nil {
				return err
			}
			if err := checkBindings(cmd, r); err != nil {
				return err
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			t, err := c.CreateJoinToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			return env.secret(t, t.Token, "join token %s can be used %s until %s, on the new machine: %s",
				t.ID, usable(t), console.Cell(t.ExpiresAt), joinCommand(t))
		},
	}
	flags := cmd.Flags()
	flags.Uint64Var(&r.NodeID, "node-id", 0, "number of the new member (default: the next free one)")
	flags.DurationVar(&r.TTL, "ttl", 30*time.Minute, "how long the token can be used")
	flags.IntVar(&r.MaxUses, "max-uses", 1, "how many machines can use it")
	flags.StringVar(&r.Mode, "mode", "full", "full, or replicate for members that never vote")
	flags.StringVar(&r.Format, "format", "", "muster, or zlayer for machines with ZLayer's join (default muster)")
	flags.StringVar(&r.BindCIDR, "cidr", "", "only machines with a source address in this prefix, such as 10.0.0.0/8")
	flags.StringVar(&r.BindName, "name-pattern", "",
		"only machines with a --name that matches this pattern, such as web-*")
	flags.StringVar(&r.BindKey, "key-hash", "", "only the public key with this SHA-256, 64 hexadecimal digits")
	flags.StringArrayVar(&r.Hosts, "host", nil,
		"host name, *.DOMAIN, IP address or network allowed in certificates of the new members; repeatable")
	flags.StringArrayVar(&labels, "label", nil, "label KEY=VALUE of the new members; repeatable")
	complete(cmd, "mode", "full", "replicate")
	complete(cmd, "format", "muster", "zlayer")
	return cmd
}

// checkJoinToken rejects invalid values of the flags of a new token.
func checkJoinToken(cmd *cobra.Command, r client.JoinTokenRequest) error {
	switch {
	case cmd.Flags().Changed("node-id") && r.NodeID == 0:
		return usagef(cmd, "--node-id must be at least 1")
	case r.TTL <= 0:
		return usagef(cmd, "--ttl must be more than 0s")
	case r.MaxUses < 1:
		return usagef(cmd, "--max-uses must be at least 1")
	case r.Mode != "full" && r.Mode != "replicate":
		return usagef(cmd, "--mode %q is neither full nor replicate", r.Mode)
	case r.Format != "" && r.Format != "muster" && r.Format != "zlayer":
		return usagef(cmd, "--format %q is neither muster nor zlayer", r.Format)
	}
	return nil
}

// usable describes how often a token can be used, and for which member.
func usable(t client.JoinToken) string {
	text := "once"
	if t.MaxUses > 1 {
		text = fmt.Sprintf("%d times", t.MaxUses)
	}
	if t.NodeID != 0 {
		text += fmt.Sprintf(" as member %d", t.NodeID)
	}
	return text
}

// joinCommand returns the command with which a machine uses a token.
func joinCommand(t client.JoinToken) string {
	if t.Format == "zlayer" {
		return "zlayer node join TOKEN"
	}
	return "muster serve --data DIR --join TOKEN"
}

// parseLabels parses KEY=VALUE pairs; without pairs it returns nil.
func parseLabels(cmd *cobra.Command, pairs []string) (map[string]string, error) {
	return parsePairs(cmd, "label", pairs)
}

func parsePairs(cmd *cobra.Command, flag string, pairs []string) (map[string]string, error) {
	var labels map[string]string
	for _, pair := range pairs {
		key, value, found := strings.Cut(pair, "=")
		if _, twice := labels[key]; !found || key == "" || twice {
			return nil, usagef(cmd, "--%s %q must be KEY=VALUE, each key once", flag, pair)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels, nil
}

// checkBindings rejects invalid bindings before the request is sent.
func checkBindings(cmd *cobra.Command, r client.JoinTokenRequest) error {
	if r.BindCIDR != "" {
		p, err := netip.ParsePrefix(r.BindCIDR)
		if err != nil {
			return usagef(cmd, "--cidr %q is not a prefix such as 10.0.0.0/8", r.BindCIDR)
		}
		if p != p.Masked() {
			return usagef(cmd, "--cidr %s has bits beyond its length; did you mean %s?", p, p.Masked())
		}
	}
	if _, err := path.Match(r.BindName, ""); err != nil {
		return usagef(cmd, "--name-pattern %q is not a pattern such as web-*", r.BindName)
	}
	if _, err := addr.ParseHostList(r.Hosts); err != nil {
		return usagef(cmd, "--host: %s", err)
	}
	if b, err := hex.DecodeString(r.BindKey); r.BindKey != "" && (err != nil || len(b) != 32 ||
		r.BindKey != strings.ToLower(r.BindKey)) {
		return usagef(cmd, "--key-hash must be 64 lower-case hexadecimal digits")
	}
	return nil
}

// boundTo describes the bindings of a token, in the words of the flags.
func boundTo(t client.JoinToken) string {
	var list []string
	for _, b := range [][2]string{{"cidr", t.BindCIDR}, {"name", t.BindName},
		{"key", t.BindKey[:min(8, len(t.BindKey))]},
		{"hosts", strings.Join(t.Hosts, "+")}} {
		if b[1] != "" {
			list = append(list, b[0]+"="+b[1])
		}
	}
	return strings.Join(list, ",")
}

// usedBy lists the members that joined with a token.
func usedBy(t client.JoinToken) string {
	var list []string
	for _, u := range t.UsedBy {
		if len(list) == 3 {
			list = append(list, "…")
			break
		}
		list = append(list, strconv.FormatUint(u.NodeID, 10))
	}
	return strings.Join(list, ",")
}

func newJoinTokenListCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List the join tokens, never their secrets",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			tokens, err := c.JoinTokens(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, tokens,
				[]string{"ID", "STATE", "MEMBER", "MODE", "USES", "CREATED", "BY", "EXPIRES", "FORMAT", "BOUND TO",
					"USED BY"},
				func(t client.JoinToken) []any {
					uses := fmt.Sprintf("%d of %d", t.Uses, t.MaxUses)
					return []any{t.ID, t.State, t.NodeID, t.Mode, uses, t.CreatedAt, t.CreatedBy, t.ExpiresAt, t.Format,
						boundTo(t), usedBy(t)}
				})
		},
	}, env)
}

func newJoinTokenRevokeCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke a join token; members that joined with it stay",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.RevokeJoinToken(cmd.Context(), args[0]); err != nil {
				return missing(err, "join token", args[0])
			}
			return env.done("join token %s is revoked", args[0])
		},
	}
}

// newJoinTokenKeyHashCommand makes a command for the joining machine.
func newJoinTokenKeyHashCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "key-hash [RECIPIENT] | --data DIR",
		Short: "Print the value for create --key-hash of a machine's key",
		Long: `Print the SHA-256 of a machine's public key, for "join-token create --key-hash": only the machine with this
key can use such a token. Run it on the new machine with its future --data: the command creates the key, DIR/node.key,
if it is missing, and "serve --join" uses it. RECIPIENT is the public key itself (age1…), from the comment in
node.key.`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (env.data != "") {
				return usagef(cmd, "give a public key (age1…) or --data DIR")
			}
			recipient := ""
			if len(args) == 1 {
				recipient = args[0]
			} else {
				made, err := machineKey(env.data)
				if err != nil {
					return err
				}
				recipient = made
			}
			key, err := certs.PublicKey(recipient)
			if err != nil {
				return usagef(cmd, "%q is not a public key of the form age1…", recipient)
			}
			sum := sha256.Sum256(key[:])
			_, err = fmt.Fprintln(env.stdout, hex.EncodeToString(sum[:]))
			return err
		},
	}
}

// machineKey returns the public key of the data directory dir, and creates it in an empty one.
func machineKey(dir string) (recipient string, err error) {
	d, err := datadir.Open(dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	n, err := d.Node()
	if err != nil {
		return "", err
	}
	if n != nil {
		return "", fmt.Errorf("%s is already the directory of a member: join tokens are for new machines",
			dir)
	}
	id, err := d.Identity()
	if err != nil {
		return "", err
	}
	return id.Recipient().String(), nil
}
