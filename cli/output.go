package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"muster/cli/console"
)

// say writes a sentence to stderr.
func (e *environment) say(format string, args ...any) {
	fmt.Fprintf(e.stderr, format+"\n", args...)
}

// done reports the result of a command: a sentence on stderr, or {"message": sentence} on stdout with -o json.
func (e *environment) done(format string, args ...any) error {
	if e.output == "json" {
		return e.json(map[string]string{"message": fmt.Sprintf(format, args...)})
	}
	e.say(format, args...)
	return nil
}

// secret prints a secret alone on stdout and a sentence about it on stderr; with -o json, it prints the object.
func (e *environment) secret(object any, secret, format string, args ...any) error {
	if e.output == "json" {
		return e.json(object)
	}
	if _, err := fmt.Fprintln(e.stdout, secret); err != nil {
		return err
	}
	e.say(format, args...)
	return nil
}

func (e *environment) json(v any) error { return console.JSON(e.stdout, v) }

func (e *environment) table(header []string, rows [][]any) error {
	return console.Table(e.stdout, header, rows)
}

// list prints items as a table with one row each, or as a JSON array.
func list[T any](e *environment, items []T, header []string, row func(T) []any) error {
	if e.output == "json" {
		return e.json(append([]T{}, items...)) // never null
	}
	rows := make([][]any, len(items))
	for i, item := range items {
		rows[i] = row(item)
	}
	if e.output == "name" {
		return e.nameColumn(header, rows)
	}
	return e.table(header, rows)
}

// nameColumn prints one column, a line each: the name that other commands accept.
func (e *environment) nameColumn(header []string, rows [][]any) error {
	column := max(0, slices.Index(header, e.nameIn))
	for _, row := range rows {
		if _, err := fmt.Fprintln(e.stdout, console.Cell(row[column])); err != nil {
			return err
		}
	}
	return nil
}

// during calls f, and on a terminal shows the activity if that takes more than a second.
func during[T any](e *environment, what string, f func() (T, error)) (out T, err error) {
	err = console.While(e.stderr, what, func() error {
		out, err = f()
		return err
	})
	return out, err
}

// yesFlag adds --yes to a command that asks before an irreversible step.
func yesFlag(cmd *cobra.Command, yes *bool) *cobra.Command {
	cmd.Flags().BoolVar(yes, "yes", false, "do it without asking")
	return cmd
}

// confirm asks before an irreversible step, unless --yes was given.
func (e *environment) confirm(yes bool, format string, args ...any) error {
	if yes {
		return nil
	}
	return console.Confirm(e.stdin, e.stderr, fmt.Sprintf(format, args...))
}
