// Package addr knows network addresses: which ones other machines can dial (addr.go), which ones of another cluster or
// service this member may dial (dial.go), and which hosts a list allows (hostlist.go). Flags, join requests,
// announcements, peerings and tokens are all checked here. It resolves no names and opens no connections.
package addr

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ErrForm matches errors about text that is not an address, as opposed to an address that others cannot dial.
var ErrForm = errors.New("not an address")

type formError struct{ text string }

func (e formError) Error() string        { return e.text }
func (e formError) Is(target error) bool { return target == ErrForm }

func badForm(format string, args ...any) error { return formError{fmt.Sprintf(format, args...)} }

// Check returns why others cannot dial s, which must be HOST:PORT; nil when they can.
func Check(s string) error {
	host, err := split(s)
	if err != nil {
		return err
	}
	return CheckHost(host)
}

// CheckHost does the same for a host without a port.
func CheckHost(host string) error {
	ip, err := parseHost(host)
	if err != nil || !ip.IsValid() {
		return err
	}
	if ip.Zone() != "" {
		return fmt.Errorf("%s has a zone, which is valid on one machine only", host)
	}
	switch ip = ip.Unmap(); {
	case ip.IsUnspecified():
		return fmt.Errorf("%s is a wildcard address; give one that other machines can dial", host)
	case ip.Is4() && ip.As4()[0] == 0:
		return fmt.Errorf("%s is in 0.0.0.0/8, which nobody can dial", host)
	}
	if err := usable(ip, host); err != nil {
		return err
	}
	if err := NeverDialled(ip); err != nil {
		return fmt.Errorf("%s is not for members: %w", host, err)
	}
	return nil
}

// CheckListen returns why a listener cannot be bound to s, which must be HOST:PORT. An empty host and the unspecified
// addresses mean all of the machine's addresses; link-local addresses need a zone.
func CheckListen(s string) error {
	host, err := split(s)
	if err != nil || host == "" {
		return err
	}
	ip, err := parseHost(host)
	if err != nil || !ip.IsValid() {
		return err
	}
	bare := ip.WithZone("").Unmap()
	switch {
	case bare.Is6() && bare.IsLinkLocalUnicast():
		if ip.Zone() == "" {
			return fmt.Errorf("%s is link-local: add the zone of its interface, such as %s%%eth0", host, host)
		}
		return nil
	case ip.Zone() != "":
		return fmt.Errorf("%s has a zone, which only link-local addresses have", host)
	case bare.IsUnspecified(), bare.IsLinkLocalUnicast():
		return nil
	}
	return usable(bare, host)
}

// usable rejects addresses that a machine cannot own (multicast, broadcast) or that are valid on one link only.
func usable(ip netip.Addr, host string) error {
	switch {
	case ip.IsMulticast():
		return fmt.Errorf("%s is a multicast address; give the address of one machine", host)
	case ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is the broadcast address; give the address of one machine", host)
	case ip.IsLinkLocalUnicast():
		return fmt.Errorf("%s is link-local: other machines cannot dial it", host)
	}
	return nil
}

// Wildcard reports whether a host means every address of the machine.
func Wildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.WithZone("").Unmap().IsUnspecified()
}

// Loopback reports whether only its own machine can dial a host.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// OnLoopback is Loopback for HOST:PORT; false for other text.
func OnLoopback(s string) bool {
	host, _, err := net.SplitHostPort(s)
	return err == nil && Loopback(host)
}

// Canonical returns HOST:PORT in its canonical spelling, so that equal addresses compare equal. It returns text that is
// not an address unchanged.
func Canonical(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return s
	}
	return net.JoinHostPort(CanonicalHost(host), port)
}

// CanonicalHost does the same for a host without a port.
func CanonicalHost(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

func split(s string) (host string, err error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", badForm("%q is not HOST:PORT", s)
	}
	if !isPort(port) {
		return "", badForm("the port of %q is not a number from 1 to 65535", s)
	}
	return host, nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}

// parseHost returns the host as an IP address, or the zero Addr for a name.
func parseHost(host string) (netip.Addr, error) {
	if host == "" {
		return netip.Addr{}, badForm("the host is missing")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip, nil
	}
	return netip.Addr{}, checkName(host)
}

// checkName accepts DNS names. It allows underscores, which container networks use.
func checkName(name string) error {
	bad := badForm("%q is neither an IP address nor a host name", name)
	labels := strings.Split(strings.TrimSuffix(name, "."), ".")
	if len(name) > 253 {
		return bad
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return bad
		}
		for _, c := range []byte(l) {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return bad
			}
		}
	}
	// 10.0.0.256, 10.1 and 0x7f.1 are mistyped addresses, which some resolvers even accept.
	if number(labels[len(labels)-1]) {
		return bad
	}
	return nil
}

func number(label string) bool {
	if hex, ok := strings.CutPrefix(strings.ToLower(label), "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
