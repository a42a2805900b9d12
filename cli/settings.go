package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/internal/naming"
)

func newSettingsCommand(env *environment) *cobra.Command {
	group := newGroup("settings", "Show and change the settings of the cluster")
	group.AddCommand(newSettingsGetCommand(env), newSettingsSetCommand(env))
	return group
}

func newSettingsGetCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "get [NAME]",
		Short: "Show all settings, or print the value of one",
		Args:  atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			all, err := c.Settings(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return env.settings(all)
			}
			value, known := all[args[0]]
			if !known {
				return fmt.Errorf("%s is not a setting; %s", args[0],
					naming.Suggest(args[0], slices.Sorted(maps.Keys(all))))
			}
			if env.output == "json" {
				return env.json(value)
			}
			_, err = fmt.Fprintln(env.stdout, settingText(value))
			return err
		},
	}, env)
}

func newSettingsSetCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME=VALUE…",
		Short: "Change settings, all or none of them; an empty VALUE stands for the default",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef(cmd, "NAME=VALUE is missing")
			}
			values := map[string]any{}
			for _, arg := range args {
				name, value, ok := strings.Cut(arg, "=")
				if !ok || name == "" {
					return usagef(cmd, "%q is not NAME=VALUE", arg)
				}
				values[name] = settingValue(value)
				if value == "" {
					values[name] = nil
				}
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			all, err := c.SetSettings(cmd.Context(), values)
			if err != nil {
				return err
			}
			maps.DeleteFunc(all, func(name string, _ json.RawMessage) bool {
				_, given := values[name]
				return !given
			})
			return env.settings(all)
		},
	}
}

// settings prints these settings.
func (e *environment) settings(all map[string]json.RawMessage) error {
	if e.output == "json" {
		return e.json(all)
	}
	var rows [][]any
	for _, name := range slices.Sorted(maps.Keys(all)) {
		rows = append(rows, []any{name, settingText(all[name])})
	}
	return e.table([]string{"SETTING", "VALUE"}, rows)
}

// settingText formats a string without quotes, and any other value as JSON.
func settingText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef(cmd, "%q is one argument too many", args[1])
	}
	if len(args) == 1 && blank(args[0]) {
		return usagef(cmd, "the argument is given but empty; leave it out or give it a value")
	}
	return nil
}
