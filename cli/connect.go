package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"muster/client"
)

// devData is where "muster dev" keeps its members, one directory each, when not told otherwise.
const devData = "data"

// config settles which cluster to talk to, and as whom: what explicit flags say, then --data, then the environment, then
// what "muster dev" left in the working directory.
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

// fill sets the fields of cfg that are still empty.
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

// devConfig finds the cluster that "muster dev" made in the working directory: the token and CA of its first member, the
// addresses of all. The zero Config when there is none.
func devConfig() (client.Config, error) {
	if _, err := os.Stat(filepath.Join(devData, "1", "node.json")); err != nil {
		return client.Config{}, nil
	}
	cfg, err := client.FromData(filepath.Join(devData, "1"))
	if err != nil {
		return cfg, err
	}
	others, _ := filepath.Glob(filepath.Join(devData, "*", "node.json"))
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(filepath.Dir(name), "removed.json")); err == nil {
			continue // a member that was removed does not come back
		}
		other, err := client.FromData(filepath.Dir(name))
		if err == nil && other.Addrs[0] != cfg.Addrs[0] {
			cfg.Addrs = append(cfg.Addrs, other.Addrs...)
		}
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

// warnPlain says so when the token would cross a network in clear text.
func (e *environment) warnPlain(addrs []string) {
	for _, addr := range addrs {
		u, err := url.Parse(addr)
		if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
			continue
		}
		if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
			e.say("warning: %s is not encrypted, the token can be read on its way", addr)
		}
	}
}

// hint adds to a refusal what the person can do about it.
func (e *environment) hint(err error) string {
	var refusal *client.Error
	refused := errors.As(err, &refusal)
	if text := e.lacks(err); text != "" {
		return text
	}
	if e.tokenless && refused && (refusal.Status == 401 || refusal.Status == 403) {
		return ": there is no token; give --token-file FILE, MUSTER_TOKEN, or --data DIR of the founder; on the machine of a member, muster recover token --data DIR makes a new one"
	}
	var nobody *client.NoServerError
	if errors.As(err, &nobody) && !nobody.Reading || refused && refusal.RetryAfter >= 0 {
		return "\nThe request was not carried out."
	}
	return ""
}
