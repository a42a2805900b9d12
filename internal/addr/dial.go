package addr

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
)

// AnyNetwork is the text of the policy that allows every network except those that NeverDialled rejects.
const AnyNetwork = "any"

// maxNetworks bounds the networks that a policy lists.
const maxNetworks = 64

// DialPolicy says which networks are dialled. The zero value allows none.
type DialPolicy struct {
	Any      bool
	Networks []netip.Prefix
	Loopback bool // this member is itself on loopback
}

// ParseDialPolicy reads a policy: "any", or a comma-separated list of networks in CIDR form. The caller sets Loopback.
func ParseDialPolicy(text string) (p DialPolicy, err error) {
	if text == AnyNetwork {
		return DialPolicy{Any: true}, nil
	}
	parts := strings.Split(text, ",")
	if len(parts) > maxNetworks {
		return p, fmt.Errorf("at most %d networks can be listed", maxNetworks)
	}
	for _, part := range parts {
		n, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil || n.Addr().Is4In6() {
			return p, fmt.Errorf("%.60q is not a network such as 10.0.0.0/8", part)
		}
		p.Networks = append(p.Networks, n.Masked())
	}
	return p, nil
}

// Check returns an error for an IP address that the policy does not allow.
func (p DialPolicy) Check(ip netip.Addr) error {
	if err := NeverDialled(ip); err != nil {
		return err
	}
	ip = embedded(ip.Unmap())
	if ip.IsLoopback() && !p.Loopback {
		return errors.New("loopback is dialled only by members that are on loopback themselves")
	}
	if p.Any || ip.IsLoopback() {
		return nil
	}
	for _, n := range p.Networks {
		if n.Contains(ip) {
			return nil
		}
	}
	return errors.New("it is not in a network that may be dialled")
}

// CheckLiteral is Check for HOST:PORT. Host names pass: Control checks them when they are resolved.
func (p DialPolicy) CheckLiteral(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil
	}
	return p.Check(ip)
}

// Control is for net.Dialer. It checks each resolved address just before the connection is made, so a name that
// resolves differently the second time (DNS rebinding) is checked as well.
func (p DialPolicy) Control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("the address %q cannot be checked", address)
	}
	return p.Check(ap.Addr())
}

// metadata lists the metadata services of clouds that are not at link-local addresses. They hold machines' credentials.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"),    // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"),      // Azure
	netip.MustParseAddr("192.0.0.192"),        // Oracle Cloud
	netip.MustParseAddr("fd00:c1::a9fe:a9fe"), // Oracle Cloud
	netip.MustParseAddr("fd20:ce::254"),       // Google Cloud
	netip.MustParseAddr("fd00:42::42"),        // Scaleway
}

// awsServices is the IPv6 network of AWS's own services: metadata, container credentials, time, DNS.
var awsServices = netip.MustParsePrefix("fd00:ec2::/32")

var reserved = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("240.0.0.0/4")}

// NeverDialled returns an error for an address that no policy can allow.
func NeverDialled(ip netip.Addr) error {
	if ip.Zone() != "" {
		return errors.New("addresses with a zone are never dialled")
	}
	ip = embedded(ip.Unmap())
	if slices.Contains(metadata, ip) || awsServices.Contains(ip) {
		return errors.New("metadata services are never dialled")
	}
	switch {
	case !ip.IsValid(), ip.IsUnspecified():
		return errors.New("it is the address of no machine")
	case ip.IsLinkLocalUnicast():
		return errors.New("link-local addresses are never dialled")
	case ip.IsMulticast():
		return errors.New("it is the address of no machine")
	}
	for _, n := range reserved {
		if n.Contains(ip) {
			return errors.New("it is the address of no machine")
		}
	}
	return nil
}

// IPv6 forms that embed an IPv4 address: RFC 6052 and RFC 8215 (NAT64), RFC 3056 (6to4), RFC 4291 (compatible), RFC
// 2765 (translated), RFC 4380 (Teredo, bits inverted), RFC 5214 (ISATAP, in the lower half).
var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
	sixTo4     = netip.MustParsePrefix("2002::/16")
	compat     = netip.MustParsePrefix("::/96")
	translated = netip.MustParsePrefix("::ffff:0:0:0/96")
	teredo     = netip.MustParsePrefix("2001::/32")
	isatap     = [4]byte{0, 0, 0x5e, 0xfe}
)

// embedded returns the IPv4 address that an IPv6 address embeds, or the address itself.
func embedded(ip netip.Addr) netip.Addr {
	b := ip.As16()
	switch {
	case !ip.Is6() || ip.IsUnspecified() || ip.IsLoopback():
		return ip
	case nat64.Contains(ip), localNAT64.Contains(ip), compat.Contains(ip), translated.Contains(ip),
		[4]byte{b[8] &^ 2, b[9], b[10], b[11]} == isatap:
		return netip.AddrFrom4([4]byte(b[12:16]))
	case teredo.Contains(ip):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	case sixTo4.Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return ip
}

// CheckPeer returns why s, an address of another cluster, is never dialled; nil when a policy may allow it. It must be
// HOST:PORT, with IPv6 addresses in brackets. A host name passes: DialDialPolicy.Control checks what it resolves to.
func CheckPeer(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || net.JoinHostPort(host, port) != s {
		return errors.New("it is not HOST:PORT")
	}
	if !isPort(port) {
		return errors.New("its port is not a number from 1 to 65535")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return NeverDialled(ip)
	}
	if checkName(host) != nil {
		return errors.New("its host is neither an IP address nor a host name")
	}
	return nil
}

// CheckIP reports whether s is an IP address; err says why it is never dialled.
func CheckIP(s string) (ok bool, err error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return false, err
	}
	return true, NeverDialled(ip)
}
