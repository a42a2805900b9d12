package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// FromEnv reads the environment: MUSTER_ADDR (addresses, comma-separated), MUSTER_TOKEN (the token itself) and
// MUSTER_CACERT (a file name). Unset variables leave fields empty, and New applies the defaults.
func FromEnv() Config {
	return Config{
		Addrs:      splitAddrs(os.Getenv("MUSTER_ADDR")),
		Token:      strings.TrimSpace(os.Getenv("MUSTER_TOKEN")),
		CACertFile: os.Getenv("MUSTER_CACERT"),
	}
}

// splitAddrs splits a comma-separated list of addresses and removes blanks and empty items.
func splitAddrs(list string) []string {
	var addrs []string
	for a := range strings.SplitSeq(list, ",") {
		if a = strings.TrimSpace(a); a != "" {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// FromData reads a member's data directory: its API address (node.json), the cluster's HTTP CA (ca.crt) and, on the
// founder, a management token (admin.token; without that file Token stays empty). An address that means "all
// interfaces" becomes loopback. It fails when dir is not a member's directory or cannot be read.
func FromData(dir string) (Config, error) {
	name := filepath.Join(dir, "node.json")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("%s is not the data directory of a member: it has no node.json", dir)
	}
	if err != nil {
		return Config{}, err
	}
	var node struct {
		APIAddress string `json:"apiAddress"`
	}
	if err := json.Unmarshal(text, &node); err != nil {
		return Config{}, fmt.Errorf("%s is not valid: %w", name, err)
	}
	host, port, err := net.SplitHostPort(node.APIAddress)
	if err != nil {
		return Config{}, fmt.Errorf("%s names no API address of the form HOST:PORT", name)
	}
	switch ip := net.ParseIP(host); {
	case host == "", ip != nil && ip.IsUnspecified() && ip.To4() != nil:
		host = "127.0.0.1"
	case ip != nil && ip.IsUnspecified():
		host = "::1"
	}
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, err
	}
	return Config{
		Addrs:      []string{"https://" + net.JoinHostPort(host, port)},
		Token:      strings.TrimSpace(string(token)),
		CACertFile: filepath.Join(dir, "ca.crt"),
	}, nil
}
