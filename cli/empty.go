package cli

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// checkGiven refuses whatever is given but empty: a flag, an element of a flag that is a list, a variable of ours. In a
// script that is a command substitution that failed, and what would happen without the flag is not what was meant.
func checkGiven(cmd *cobra.Command) error {
	if strings.HasPrefix(cmd.Name(), "__") { // the shell asks for completions
		return nil
	}
	var empty error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if empty == nil && emptyFlag(f) {
			empty = usagef(cmd, "--%s is given but empty; leave it out or give it a value", f.Name)
		}
	})
	if empty != nil {
		return empty
	}
	environ := os.Environ()
	slices.Sort(environ)
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "MUSTER_") && blank(value) {
			return usagef(cmd, "%s is set but empty; unset it or give it a value", name)
		}
	}
	return nil
}

// noEmptyElements makes the lists of a command and of those below it refuse empty elements.
func noEmptyElements(cmd *cobra.Command) {
	wrap := func(f *pflag.Flag) {
		if v, ok := f.Value.(pflag.SliceValue); ok && f.Value.Type() == "stringSlice" {
			f.Value, f.DefValue = &sliceFlag{Value: f.Value, SliceValue: v}, "" // none has a default
		}
	}
	cmd.Flags().VisitAll(wrap)
	cmd.PersistentFlags().VisitAll(wrap)
	for _, c := range cmd.Commands() {
		noEmptyElements(c)
	}
}

// sliceFlag is a list that would forget an empty element which is given by itself.
type sliceFlag struct {
	pflag.Value
	pflag.SliceValue
}

// Set refuses an empty value.
func (f *sliceFlag) Set(s string) error {
	if blank(s) {
		return errors.New("it is given but empty")
	}
	return f.Value.Set(s)
}

func emptyFlag(f *pflag.Flag) bool {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		values := list.GetSlice()
		return len(values) == 0 || slices.ContainsFunc(values, blank)
	}
	switch f.Value.Type() {
	case "string":
		return blank(f.Value.String())
	default: // what parses its value refuses an empty one itself
		return false
	}
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }
