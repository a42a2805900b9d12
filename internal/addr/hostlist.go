package addr

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxHosts bounds the entries of a list.
const maxHosts = 64

// HostListRule says what an entry must be, as it completes "NAME must be …".
const HostListRule = "up to 64 host names, patterns such as *.example.org, IP addresses or networks such as 10.0.0.0/8"

// HostList is a list of allowed hosts. The zero value allows none.
type HostList struct {
	Exact    []string       // host names, lower case
	Below    []string       // names whose subdomains are allowed, at any depth
	Networks []netip.Prefix // single addresses are networks of one
}

// NoHosts is the text of a list that allows nothing.
const NoHosts = "none"

// SplitHostList splits a comma-separated list.
func SplitHostList(text string) []string {
	if text == NoHosts {
		return nil
	}
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// ParseHostList reads the entries of a list. The error names the entry and the rule.
func ParseHostList(entries []string) (l HostList, err error) {
	if len(entries) > maxHosts {
		return l, fmt.Errorf("at most %d entries can be listed", maxHosts)
	}
	for _, e := range entries {
		if err := l.add(e); err != nil {
			return HostList{}, err
		}
	}
	return l, nil
}

func (l *HostList) add(entry string) error {
	if p, err := netip.ParsePrefix(entry); err == nil {
		if p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("%s is not a network such as 10.0.0.0/8: it has host bits set", entry)
		}
		l.Networks = append(l.Networks, p)
		return nil
	}
	if ip, err := netip.ParseAddr(entry); err == nil {
		if err := CheckHost(entry); err != nil {
			return err
		}
		ip = ip.Unmap()
		l.Networks = append(l.Networks, netip.PrefixFrom(ip, ip.BitLen()))
		return nil
	}
	name, below := strings.CutPrefix(entry, "*.")
	if CheckHost(name) != nil || below && isIP(name) {
		return fmt.Errorf("%.80q is neither a host name, a pattern such as *.example.org, an IP address nor a network", entry)
	}
	if name = CanonicalHost(name); below {
		l.Below = append(l.Below, name)
	} else {
		l.Exact = append(l.Exact, name)
	}
	return nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// Names reports whether the list has an entry for exactly this host: its name, or its address as a single entry.
func (l *HostList) Names(host string) bool {
	host = CanonicalHost(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		return slices.Contains(l.Networks, netip.PrefixFrom(ip, ip.BitLen()))
	}
	return slices.Contains(l.Exact, host)
}

// Allows reports whether an entry of the list matches a host: a name, a pattern or a network.
func (l *HostList) Allows(host string) bool {
	host = CanonicalHost(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		return slices.ContainsFunc(l.Networks, func(p netip.Prefix) bool { return p.Contains(ip) })
	}
	return slices.Contains(l.Exact, host) ||
		slices.ContainsFunc(l.Below, func(name string) bool { return strings.HasSuffix(host, "."+name) })
}
