package cli

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/client"
	"muster/internal/naming"
)

// usageError is an invalid command line: exit status 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// usagef makes a usageError that points at the command's help.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...) + fmt.Sprintf(" (see %q)", cmd.CommandPath()+" --help")}
}

// exactly requires these arguments; without names it allows none.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef(cmd, "%s is missing", strings.Join(names[len(args):], " and "))
		}
		if len(args) > len(names) {
			if cmd.HasSubCommands() {
				return unknownCommand(cmd, args[len(names)])
			}
			return usagef(cmd, "%q is one argument too many", args[len(names)])
		}
		for i, a := range args {
			if blank(a) && names[i] != "the query" { // the server explains errors in a query
				return usagef(cmd, "%s is given but empty", names[i])
			}
		}
		return nil
	}
}

// flagError explains an invalid flag, and names the most similar one for an unknown flag.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return usagef(cmd, "--%s%s", invalid.GetFlag().Name, rule(err))
	}
	name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return usagef(cmd, "%v", err)
	}
	if like := nearestFlag(cmd.Flags(), name); like != "" {
		return usagef(cmd, "%v; did you mean --%s?", err, like)
	}
	return usagef(cmd, "%v", err)
}

// kinds maps types of flags to the rule for their values.
var kinds = map[string]string{
	"bool":     "true or false",
	"duration": "a duration such as 500ms, 10s or 2h",
	"int":      "a whole number",
	"uint64":   "a whole number, not negative",
}

// rule returns the rule that a flag's value breaks, to be appended to the flag's name.
func rule(err error) string {
	var invalid *pflag.InvalidValueError
	switch {
	case !errors.As(err, &invalid):
		return ": " + err.Error()
	case kinds[invalid.GetFlag().Value.Type()] != "":
		return fmt.Sprintf(" must be %s: %q is not", kinds[invalid.GetFlag().Value.Type()], invalid.GetValue())
	}
	return ": " + invalid.Unwrap().Error()
}

// nearestFlag returns the most similar flag; empty if none is similar.
func nearestFlag(flags *pflag.FlagSet, name string) string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return naming.Nearest(name, names)
}

func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	like := cmd.SuggestionsFor(name)
	off := func(s string) int { return naming.Edits(name, s) }
	slices.SortStableFunc(like, func(a, b string) int { return off(a) - off(b) }) // the likeliest first
	for _, same := range sameMeaning(cmd, name) {
		if !slices.Contains(like, same) {
			like = append(like, same)
		}
	}
	if len(like) > 0 {
		return usagef(cmd, "unknown command %q; did you mean %s?", name, strings.Join(like, " or "))
	}
	return usagef(cmd, "unknown command %q", name)
}

// synonyms are groups of words for the same thing, some of them commands here and the others commands of other tools.
var synonyms = [][]string{
	{"list", "ls", "list-peers", "peers"},
	{"show", "get", "read", "describe", "info", "cat", "view", "inspect", "list", "status"},
	{"create", "add", "new", "make", "generate", "put", "set", "token", "establish", "run", "save"},
	{"delete", "remove", "rm", "del", "revoke", "destroy"},
	{"member", "members", "node", "nodes", "server", "servers", "machine", "machines"},
	{"watch", "event", "events", "monitor"},
	{"audit", "log", "logs", "history"},
	{"api-token", "join-token", "enroll-token", "token", "tokens"},
	{"api-token", "login", "acl", "user", "users", "role", "policy"},
	{"join-token", "serve", "join"},
	{"serve", "start", "run", "agent", "daemon"},
	{"backup", "snapshot", "snapshots", "dump", "restore"},
	{"raft", "operator", "transfer-leadership"},
	{"ca", "cert", "authority", "authorities", "certificate", "certificates", "pki", "tls"},
	{"peering", "peer", "peers", "federation"},
	{"workload", "spiffe", "svid", "identity"},
	{"lease", "session", "sessions"},
	{"sql", "query", "db"},
	{"doctor", "check", "debug", "diagnose"},
}

// sameMeaning returns the subcommands that are called what name means.
func sameMeaning(cmd *cobra.Command, name string) (list []string) {
	for _, group := range synonyms {
		if !slices.Contains(group, name) {
			continue
		}
		for _, sub := range cmd.Commands() {
			if slices.Contains(group, sub.Name()) {
				list = append(list, sub.Name())
			}
		}
	}
	return list
}

// missing names what a refusal with status 404 was about: there is no NOUN "NAME". Other errors stay as they are.
func missing(err error, noun, name string) error {
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusNotFound ||
		!strings.Contains(refusal.Message, "not found") { // it may be the endpoint that an older server lacks
		return err
	}
	return fmt.Errorf("there is no %s %q", noun, name)
}

// checkGiven refuses empty values: of a flag, of an element of a list, of a variable MUSTER_…. In a script an empty
// value comes from a failed command substitution, and ignoring the flag would do something else than intended.
func checkGiven(cmd *cobra.Command) error {
	if strings.HasPrefix(cmd.Name(), "__") { // completion requests of the shell
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

// noEmptyElements makes the list flags of a command and its subcommands refuse empty elements.
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

// sliceFlag is a list flag that refuses a single empty element; pflag would ignore it.
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
	default: // the parsers of other types refuse empty values themselves
		return false
	}
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

// words maps parts of the server's sentences that name requests to command lines.
var words = []struct {
	server *regexp.Regexp
	here   string
}{
	{regexp.MustCompile(`via POST /api/v1/cluster/members/(\d+)/drain`), `with "muster member drain $1"`},
	{regexp.MustCompile(`pass \?force=true`), "give --force"},
	{regexp.MustCompile(`\?force=true`), "--force"},
	{regexp.MustCompile(`POST /api/v1/cluster/join-tokens`), "muster join-token create"},
	{regexp.MustCompile(`\bexpiresWithin must`), "--expires-within must"},
	{regexp.MustCompile(`; force goes on without them`), "; --force goes on without them"},
	// mayHaveHappened says it
	{regexp.MustCompile(`; look before you repeat it, which is always safe with an Idempotency-Key`), ""},
}

// seconds is the rule of a lifetime in requests; the command line has durations.
var seconds = regexp.MustCompile(`\bttlSeconds must be (?:a whole number )?between (\d+) and (\d+)`)

// lifetime writes a number of seconds as a duration, in its largest unit.
func lifetime(number string) string {
	n, err := strconv.Atoi(number)
	switch {
	case err != nil:
		return number + "s"
	case n%3600 == 0:
		return strconv.Itoa(n/3600) + "h"
	case n%60 == 0:
		return strconv.Itoa(n/60) + "m"
	}
	return number + "s"
}

// inWords rewrites a sentence of the server in terms of the command line.
func inWords(text string) string {
	text = seconds.ReplaceAllStringFunc(text, func(s string) string {
		m := seconds.FindStringSubmatch(s)
		return fmt.Sprintf("--ttl must be between %s and %s", lifetime(m[1]), lifetime(m[2]))
	})
	for _, w := range words {
		text = w.server.ReplaceAllString(text, w.here)
	}
	return text
}
