package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"muster/client"
	"muster/node"
)

func newConfigCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the address, token and CA that commands use, and their sources",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			rows, err := env.origins()
			if err != nil {
				return err
			}
			return list(env, rows, []string{"NAME", "VALUE", "FROM"},
				func(o origin) []any { return []any{o.Name, o.Value, o.From} })
		},
	}
	cmd.AddCommand(newConfigCheckCommand(env))
	return cmd
}

// newConfigCheckCommand makes a command that checks the flags of serve and starts nothing.
func newConfigCheckCommand(env *environment) *cobra.Command {
	f := serveFlags{Config: node.Default(), founding: node.DefaultFounding}
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check the configuration of a member like serve, and start nothing",
		Args:  atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.file = args[0]
			}
			if err := f.read(cmd); err != nil {
				return err
			}
			if f.JoinErr != nil {
				return f.JoinErr
			}
			cfg, err := f.config(env)
			if err == nil {
				err = cfg.Check()
			}
			if err != nil {
				return err
			}
			return env.done("the configuration is good")
		},
	}
	f.register(cmd)
	return cmd
}

// origin is one value needed to reach a cluster, and its source.
type origin struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"`
}

// origins resolves address, token and CA like every command, each with its source. It does not show the token itself.
func (e *environment) origins() ([]origin, error) {
	cfg, err := e.config()
	if err != nil {
		return nil, err
	}
	var data, env, dev client.Config
	if e.data != "" {
		if data, err = client.FromData(e.data); err != nil {
			return nil, err
		}
	}
	env = client.FromEnv()
	if len(e.addrs) == 0 && len(data.Addrs) == 0 && len(env.Addrs) == 0 {
		if dev, err = devConfig(); err != nil {
			return nil, err
		}
	}
	from := func(flag, in, out, made bool, name, variable string) string {
		switch {
		case flag:
			return name
		case in:
			return "--data " + e.data
		case out:
			return variable
		case made:
			return "./" + devData + `, made by "muster dev"`
		}
		return "nothing names one: the default"
	}
	token := "none"
	if cfg.Token != "" {
		token = "(not shown)"
	}
	return []origin{
		{"address", cmp.Or(strings.Join(cfg.Addrs, ","), client.DefaultAddr),
			from(len(e.addrs) > 0, len(data.Addrs) > 0, len(env.Addrs) > 0, len(dev.Addrs) > 0, "--addr",
				"MUSTER_ADDR")},
		{"token", token, from(e.tokenFile != "", data.Token != "", env.Token != "", dev.Token != "", "--token-file",
			"MUSTER_TOKEN")},
		{"ca", cmp.Or(cfg.CACertFile, "those of this machine"),
			from(e.caCert != "", data.CACertFile != "", env.CACertFile != "", dev.CACertFile != "", "--cacert",
				"MUSTER_CACERT")},
	}, nil
}

const (
	maxConfigFile  = 1 << 20 // bytes
	configVariable = "MUSTER_CONFIG"
)

// variables has the environment variables whose name does not follow from the flag's name, and the separators of lists.
var variables = map[string]struct{ name, separator string }{
	"join":        {name: "MUSTER_JOIN_TOKEN"},
	"peer":        {name: "MUSTER_PEERS", separator: ","},
	"drain-hook":  {separator: "\n"}, // commands have commas
	"resume-hook": {separator: "\n"},
}

// variable returns the environment variable of a flag of serve.
func variable(flag string) string {
	return cmp.Or(variables[flag].name, "MUSTER_"+strings.ToUpper(strings.ReplaceAll(flag, "-", "_")))
}

// configFlag adds --config to a command whose own flags may be set in a file.
func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "",
		"file (YAML) with these flags, one a line: NAME: VALUE (or "+configVariable+")")
}

// fromElsewhere sets the flags that are missing on the command line: from the environment, or else from the file.
func fromElsewhere(cmd *cobra.Command, file string) error {
	flags := ownFlags(cmd)
	given := map[string]bool{}
	var bad error
	flags.VisitAll(func(f *pflag.Flag) {
		if bad == nil && f.Name != "config" {
			bad = fromEnvironment(cmd, f)
			given[f.Name] = f.Changed
		}
	})
	if file = cmp.Or(file, os.Getenv(configVariable)); bad != nil || file == "" {
		return bad
	}
	return readConfig(cmd, file, given)
}

// fromEnvironment sets a flag that is missing on the command line from its variable, if that is set.
func fromEnvironment(cmd *cobra.Command, f *pflag.Flag) error {
	text, set := os.LookupEnv(variable(f.Name))
	if !set || f.Changed {
		return nil
	}
	for _, one := range elements(f.Name, text) {
		if err := cmd.Flags().Set(f.Name, one); err != nil {
			return usagef(cmd, "%s%s", variable(f.Name), rule(err))
		}
	}
	return nil
}

// ownFlags returns the flags that describe a member, without the global ones and help.
func ownFlags(cmd *cobra.Command) *pflag.FlagSet { return cmd.LocalNonPersistentFlags() }

func elements(flag, text string) []string {
	if sep := variables[flag].separator; sep != "" {
		return strings.Split(strings.Trim(text, sep), sep)
	}
	return []string{text}
}

// readConfig sets the flags that are not given yet from a YAML file: one mapping of names to values or lists.
func readConfig(cmd *cobra.Command, file string, given map[string]bool) error {
	info, data, err := readLimited(file)
	if err != nil {
		return usagef(cmd, "the configuration cannot be read: %v", err)
	}
	if len(bytes.TrimSpace(data)) == 0 { // perhaps written on a full disk
		return usagef(cmd, "%s is empty; omit the file, or write the settings into it", file)
	}
	root, err := mapping(data)
	if err != nil {
		return usagef(cmd, "%s: %v", file, err)
	}
	seen := map[string]bool{}
	for i := 0; root != nil && i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		fail := func(format string, args ...any) error {
			return usagef(cmd, "%s:%d: %s", file, key.Line, fmt.Sprintf(format, args...))
		}
		f := ownFlags(cmd).Lookup(key.Value)
		switch {
		case f != nil && f.Name == "config":
			return fail("config names this file and cannot stand in it")
		case f == nil || f.Hidden || f.Name == "help":
			return fail("%s", unknownKey(cmd, key.Value))
		case seen[f.Name]:
			return fail("%s stands here twice", f.Name)
		case f.Name == "join" && info.Mode().Perm()&0o077 != 0 && !strings.HasPrefix(value.Value, "@"):
			return fail("join holds a token, and others may read this file (mode %04o): chmod 600 it, or write join: '@FILE'",
				info.Mode().Perm())
		}
		seen[f.Name] = true
		list, err := valuesOf(f.Name, value)
		if err != nil {
			return fail("%s %v", f.Name, err)
		}
		for _, one := range list {
			if given[f.Name] {
				break
			}
			if err := cmd.Flags().Set(f.Name, one); err != nil { // not ownFlags: only this set is asked for given flags
				return fail("%s%s", f.Name, rule(err))
			}
		}
	}
	return nil
}

func readLimited(file string) (os.FileInfo, []byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err == nil && len(data) > maxConfigFile {
		err = fmt.Errorf("%s is longer than 1 MiB", file)
	}
	return info, data, err
}

// mapping returns the only mapping of a YAML file, or nil for a file without content.
func mapping(data []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := decoder.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, syntaxError(err)
	case decoder.Decode(&more) != io.EOF:
		return nil, errors.New("it holds more than one document")
	case len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode:
		return nil, fmt.Errorf("line %d: the file must have lines of the form NAME: VALUE", max(doc.Line, 1))
	}
	return doc.Content[0], nil
}

// syntaxError explains an invalid YAML file, with a line; the library names none when it is the first.
func syntaxError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if !strings.HasPrefix(text, "line ") {
		text = "line 1: " + text
	}
	return errors.New(text)
}

// valuesOf returns a value, or the list of a repeatable flag.
func valuesOf(flag string, n *yaml.Node) ([]string, error) {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		if variables[flag].separator == "" {
			return nil, errors.New("must be one value, not a list")
		}
		items = n.Content
	}
	empty := errors.New("is given but empty; leave it out or give it a value")
	if len(items) == 0 {
		return nil, empty
	}
	var list []string
	for _, item := range items {
		switch {
		case item.Kind != yaml.ScalarNode:
			return nil, errors.New("must be text, a number, true or false")
		case item.Tag == "!!null" || blank(item.Value):
			return nil, empty
		}
		list = append(list, item.Value)
	}
	return list, nil
}

// unknownKey returns the error text for an unknown setting, with the most similar known one.
func unknownKey(cmd *cobra.Command, name string) string {
	text := fmt.Sprintf("there is no setting %q", name)
	if like := nearestFlag(ownFlags(cmd), name); like != "" && like != "config" && like != "help" {
		text += "; did you mean " + like + "?"
	}
	return text
}
