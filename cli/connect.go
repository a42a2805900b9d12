package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/cli/devdir"
	"muster/client"
)

// devData is the default directory of "muster dev"; it has one subdirectory per member.
const devData = "data"

const (
	commandTimeout = 6 * time.Second        // for a command that does not wait for machines
	leaderPoll     = 200 * time.Millisecond // between two searches for a leader
)

// config resolves address, token and CA: from flags, then --data, then the environment, then the "muster dev" cluster
// in the working directory.
func (e *environment) config() (client.Config, error) {
	cfg := client.Config{Addrs: e.addrs, CACertFile: e.caCert}
	if e.tokenFile != "" {
		token, err := e.readToken()
		if err != nil {
			return cfg, err
		}
		cfg.Token = token
	}
	if e.data != "" {
		found, err := client.FromData(e.data)
		if err != nil {
			return cfg, err
		}
		fill(&cfg, found)
	}
	fill(&cfg, client.FromEnv())
	if len(cfg.Addrs) == 0 {
		found, err := devConfig()
		if err != nil {
			return cfg, err
		}
		fill(&cfg, found)
	}
	cfg.UserAgent, cfg.Timeout = "muster/"+Version, commandTimeout
	e.tokenless = cfg.Token == ""
	if !e.tokenless {
		e.warnPlain(cfg.Addrs)
	}
	return cfg, nil
}

// fill sets the empty fields of cfg.
func fill(cfg *client.Config, from client.Config) {
	if len(cfg.Addrs) == 0 {
		cfg.Addrs = from.Addrs
	}
	if cfg.Token == "" {
		cfg.Token = from.Token
	}
	if cfg.CACertFile == "" {
		cfg.CACertFile = from.CACertFile
	}
}

// devConfig finds the cluster of "muster dev" in the working directory: the token and CA of its first member, the
// addresses of all but removed ones. Without such a cluster it returns the zero Config.
func devConfig() (client.Config, error) {
	if _, err := os.Stat(filepath.Join(devData, "1", "node.json")); err != nil {
		return client.Config{}, nil
	}
	cfg, err := client.FromData(filepath.Join(devData, "1"))
	if err != nil {
		return cfg, err
	}
	all, _ := filepath.Glob(filepath.Join(devData, "*", "node.json"))
	var addrs []string
	for _, name := range all {
		dir := filepath.Dir(name)
		if devdir.Removed(dir) {
			continue
		}
		if other, err := client.FromData(dir); err == nil {
			if addrs == nil {
				cfg.CACertFile = other.CACertFile // a removed member's is of its own time
			}
			addrs = append(addrs, other.Addrs...)
		}
	}
	if len(addrs) > 0 {
		cfg.Addrs = addrs
	}
	return cfg, nil
}

func (e *environment) readToken() (string, error) {
	var (
		text []byte
		err  error
	)
	if e.tokenFile == "-" {
		text, err = io.ReadAll(io.LimitReader(e.stdin, 1<<16))
	} else {
		text, err = os.ReadFile(e.tokenFile)
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		name := "the token file " + e.tokenFile
		if e.tokenFile == "-" {
			name = "the token file, stdin,"
		}
		return "", &usageError{name + " is empty"}
	}
	return token, nil
}

// warnPlain warns when the token would cross a network in clear text.
func (e *environment) warnPlain(addrs []string) {
	for _, addr := range addrs {
		u, err := url.Parse(addr)
		if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
			continue
		}
		if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
			e.say("warning: %s is not encrypted, the token can be read in transit", addr)
		}
	}
}

// hint adds to a refusal what the operator can do.
func (e *environment) hint(err error) string {
	var refusal *client.Error
	refused := errors.As(err, &refusal)
	if text := e.lacks(err); text != "" {
		return text
	}
	if e.tokenless && refused && (refusal.Status == 401 || refusal.Status == 403) {
		return ": there is no token; give --token-file FILE, MUSTER_TOKEN, or --data DIR of the founder; " +
			"on the machine of a member, muster recover token --data DIR makes a new one"
	}
	var nobody *client.NoServerError
	if errors.As(err, &nobody) && !nobody.Reading || refused && refusal.RetryAfter >= 0 {
		return "\nThe request was not carried out."
	}
	return ""
}

// noLeaderError is the error of a command that found no leader and sent nothing.
type noLeaderError struct{ survey client.Survey }

// Unwrap returns client.ErrNoLeader.
func (e *noLeaderError) Unwrap() error { return client.ErrNoLeader }

// Error lists the addresses that answered and those that did not.
func (e *noLeaderError) Error() string {
	var b strings.Builder
	all := e.survey.Answered + len(e.survey.Silent)
	fmt.Fprintf(&b, "there is no leader: %d of %d addresses answered, and no member there knows one", e.survey.Answered,
		all)
	for _, t := range e.survey.Silent {
		why := "no answer yet"
		if t.Err != nil {
			why = t.Err.Error()
		}
		fmt.Fprintf(&b, "\n  %s: %s", t.Addr, why)
	}
	return b.String() + "\nNothing was sent, so nothing has happened."
}

// anybody makes a client for requests that every member answers by itself.
func (e *environment) anybody() (*client.Client, error) {
	if e.made != nil { // a token from stdin can be read only once
		return e.made, nil
	}
	cfg, err := e.config()
	if err != nil {
		return nil, err
	}
	e.made, err = client.New(cfg)
	return e.made, err
}

// client makes a client for a command that needs a leader. It blocks until a leader is found; after commandTimeout it
// fails, and nothing has been sent.
func (e *environment) client(ctx context.Context) (*client.Client, error) {
	c, err := e.anybody()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	waiting := console.NewLine(e.stderr)
	defer waiting.End()
	last := &noLeaderError{}
	for {
		s, err := c.Survey(ctx)
		switch {
		case err == nil && s.Leader:
			return c, nil
		case err == nil:
			last.survey = s
		case last.survey.Answered == 0 || errors.Is(err, context.Canceled):
			return nil, err
		}
		waiting.Note("waiting for a leader …")
		select {
		case <-time.After(leaderPoll):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, last
		}
	}
}

// reader makes a client for a command that only reads. Without a leader, or with --stale, a member answers from its own
// replica, and a line on stderr reports the age.
func (e *environment) reader(ctx context.Context) (*client.Client, error) {
	c, err := e.anybody()
	if err != nil {
		return nil, err
	}
	s, err := c.Survey(ctx)
	if err != nil {
		var none *client.NoServerError
		if errors.As(err, &none) {
			none.Reading = true
		}
		return nil, err
	}
	said := false
	report := func(age client.Age) {
		if !said {
			e.say("%s", staleness(age, e.stale))
		}
		said = true
	}
	if s.Leader && !e.stale {
		return c.OrStale(report), nil // the leader may be lost at this moment
	}
	return c.Stale(report), nil
}

// staleness describes the age of an answer, and why it is not current.
func staleness(age client.Age, wanted bool) string {
	from := "this is what the member at " + console.Printable(age.Addr)
	switch {
	case age.Leader:
		return from + " has itself, at most about a second old"
	case age.Known && wanted:
		return fmt.Sprintf("%s knew when it last had a leader, %s ago", from, age.Ago.Round(time.Second))
	case age.Known:
		return fmt.Sprintf("there is no leader: %s knew when it last had one, %s ago", from, age.Ago.Round(time.Second))
	}
	return "there is no leader: " + from + " knew before it was started; it has had no leader since"
}

// staleFlag adds --stale to a command that reads.
func staleFlag(cmd *cobra.Command, env *environment) *cobra.Command {
	cmd.Flags().BoolVar(&env.stale, "stale", false,
		"answer from the contacted member's replica; without a leader this is the default")
	return cmd
}
