package certs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// splitHosts splits hosts into IP addresses and DNS names, without duplicates.
func splitHosts(hosts []string) (ips []net.IP, names []string, err error) {
	for _, h := range hosts {
		if addr, err := netip.ParseAddr(h); err == nil {
			if addr.Zone() != "" {
				return nil, nil, fmt.Errorf("certs: host %q: an address with a zone is valid on one machine only", h)
			}
			ip := net.IP(addr.Unmap().AsSlice())
			if !slices.ContainsFunc(ips, ip.Equal) {
				ips = append(ips, ip)
			}
			continue
		}
		if _, _, err := net.SplitHostPort(h); err == nil {
			return nil, nil, fmt.Errorf("certs: host %q: give the host without a port", h)
		}
		name := strings.ToLower(h)
		if err := checkDNSName(name); err != nil {
			return nil, nil, fmt.Errorf("certs: host %q: %w", h, err)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return ips, names, nil
}

// checkDNSName accepts lower-case host names (RFC 1123) and underscores, which
// container networks use.
func checkDNSName(name string) error {
	if name == "" || len(name) > 253 {
		return errors.New("a DNS name has 1 to 253 characters")
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return errors.New("each part of a DNS name has 1 to 63 characters and no hyphen at either end")
		}
		for _, c := range l {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return errors.New("a DNS name has letters, digits, hyphens and dots only")
			}
		}
	}
	// 10.0.0.256 or 10.0.1 is a mistyped address, not a name.
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return errors.New("this is neither an IP address nor a DNS name")
	}
	return nil
}

// checkHostPort accepts "host:port" with a port of 1..65535 and, for IPv6, the
// usual brackets.
func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("an address is written host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return errors.New("a port is a number from 1 to 65535")
	}
	_, _, err = splitHosts([]string{host})
	return err
}
