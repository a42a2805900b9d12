package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

// maxSecret is the maximum size of a value, in bytes.
const maxSecret = 64 << 10

func newSecretCommand(env *environment) *cobra.Command {
	group := newGroup("secret", "Keep, read and delete secrets, encrypted in the cluster")
	group.AddCommand(newSecretPutCommand(env), newSecretGetCommand(env), newSecretListCommand(env),
		newSecretDeleteCommand(env))
	return group
}

func newSecretPutCommand(env *environment) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "put NAME",
		Short: "Store a value from stdin or --file, byte for byte, as the next version of a name",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" && env.tokenFile == "-" {
				return usagef(cmd, "the token and the value cannot both come from stdin: give --file FILE")
			}
			value, err := env.readSecret(file)
			if err != nil {
				return err
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			s, err := c.PutSecret(cmd.Context(), args[0], value)
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(s)
			}
			env.say("secret %s has version %d", s.Name, s.Version)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file with the value (default stdin)")
	return cmd
}

func (e *environment) readSecret(file string) ([]byte, error) {
	in := e.stdin
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read the value: %w", err)
		}
		defer f.Close()
		in = f
	} else if console.Terminal(in) {
		e.say("type the value and end it with Ctrl-D on a line of its own")
	}
	if in == nil {
		return nil, errors.New("there is no stdin to read the value from: give --file FILE")
	}
	value, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the value: %w", err)
	}
	if len(value) == 0 { // most likely a failed command before the pipe
		return nil, errors.New("the value is empty, and nothing is stored")
	}
	if len(value) > maxSecret {
		return nil, errors.New("the value is longer than 64 KiB")
	}
	return value, nil
}

func newSecretGetCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME",
		Short: "Print a value, it alone and byte for byte, on stdout",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			s, err := c.Secret(cmd.Context(), args[0])
			if err != nil {
				return missing(err, "secret", args[0])
			}
			if env.output == "json" {
				return env.json(secretObject(s))
			}
			if _, err := env.stdout.Write(s.Value); err != nil {
				return err
			}
			if console.Terminal(env.stdout) { // elsewhere the output is the exact value
				fmt.Fprintln(env.stdout)
			}
			return nil
		},
	}
}

func newSecretListCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List the secrets, never their values",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			secrets, err := c.Secrets(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, secrets,
				[]string{"NAME", "VERSION", "GENERATION", "CREATED", "UPDATED"},
				func(s client.SecretInfo) []any {
					return []any{s.Name, s.Version, s.Generation, s.CreatedAt, s.UpdatedAt}
				})
		},
	}, env)
}

func newSecretDeleteCommand(env *environment) *cobra.Command {
	var yes bool
	return yesFlag(&cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a secret for good",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			if err := env.confirm(yes, "delete the secret %s and all its versions?", args[0]); err != nil {
				return err
			}
			if err := c.DeleteSecret(cmd.Context(), args[0]); err != nil {
				return missing(err, "secret", args[0])
			}
			return env.done("secret %s is deleted", args[0])
		},
	}, &yes)
}

// secretObject returns a secret as the API shows it: a value that is not text is Base64, named by encoding.
func secretObject(s client.Secret) any {
	object := struct {
		client.SecretInfo
		Value    string `json:"value"`
		Encoding string `json:"encoding,omitempty"`
	}{SecretInfo: s.SecretInfo, Value: string(s.Value)}
	if !utf8.Valid(s.Value) {
		object.Value, object.Encoding = base64.StdEncoding.EncodeToString(s.Value), "base64"
	}
	return object
}
