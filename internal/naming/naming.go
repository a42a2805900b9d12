// Package naming finds the member that an operator's text names. Every endpoint and every command uses Resolve, so that
// the same text never names two machines. Nearest and Suggest help with misspelt names. It imports only package addr
// and does no I/O.
package naming

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"muster/internal/addr"
)

// Member holds the names and addresses of a member. A dead member keeps them until it is removed.
type Member struct {
	NodeID      uint64
	ID          string // UUID
	Name        string
	RaftAddress string // HOST:PORT
	APIAddress  string // HOST:PORT or an https URL
	Host        string // advertised host without a port; may be empty
	Status      string // "alive", "down", "left", "unknown" or empty
}

// ErrNone means that no member has this name.
var ErrNone = errors.New("no such member")

// Ambiguous is the error for a text that names several members.
type Ambiguous struct {
	Text       string
	Candidates []Member
}

// Error lists the candidates.
func (e *Ambiguous) Error() string {
	list := make([]string, 0, len(e.Candidates))
	for _, m := range e.Candidates {
		status := m.Status
		if status == "" {
			status = "status unknown"
		}
		list = append(list, fmt.Sprintf("%d (%s, %s, %s)", m.NodeID, m.Name, m.RaftAddress, status))
		if len(list) == 10 && len(e.Candidates) > 10 {
			list = append(list, fmt.Sprintf("and %d more", len(e.Candidates)-10))
			break
		}
	}
	return fmt.Sprintf("%q can mean %d members: %s; give the member's number", e.Text, len(e.Candidates),
		strings.Join(list, ", "))
}

// Number reports whether text is a member's number and nothing else.
func Number(text string) (id int64, ok bool) {
	id, err := strconv.ParseInt(text, 10, 64)
	return id, err == nil
}

// Resolve returns the member that text means: its number, or else its UUID, name, address or host name. A whole number
// is always a member's number, whatever names there are. It returns ErrNone or an *Ambiguous.
func Resolve(members []Member, text string) (Member, error) {
	return find(members, text, func(m *Member) bool { return m.named(text) || m.at(text) })
}

// ResolveAddress is Resolve for text that can only be an address (HOST:PORT, of the cluster or the API listener) or a
// host name.
func ResolveAddress(members []Member, text string) (Member, error) {
	return find(members, text, func(m *Member) bool { return m.at(text) })
}

func find(members []Member, text string, fits func(*Member) bool) (Member, error) {
	if id, ok := Number(text); ok {
		fits = func(m *Member) bool { return id > 0 && m.NodeID == uint64(id) }
	}
	var found []Member
	for i := range members {
		if text != "" && fits(&members[i]) {
			found = append(found, members[i])
		}
	}
	switch len(found) {
	case 0:
		return Member{}, ErrNone
	case 1:
		return found[0], nil
	}
	return Member{}, &Ambiguous{Text: text, Candidates: found}
}

// Region is the suffix that the Raft operator API appends to the names of members.
const Region = ".global"

func (m *Member) named(text string) bool {
	return strings.EqualFold(m.ID, text) || same(m.Name, text) || same(m.Name+Region, text)
}

// same compares host names: case and a trailing dot do not matter.
func same(name, text string) bool {
	return strings.EqualFold(strings.TrimSuffix(name, "."), strings.TrimSuffix(text, "."))
}

func (m *Member) at(text string) bool {
	api := hostPort(m.APIAddress)
	if text = hostPort(text); strings.Contains(text, ":") {
		if _, _, err := net.SplitHostPort(text); err == nil {
			text = addr.Canonical(text)
			return text == addr.Canonical(m.RaftAddress) || text == addr.Canonical(api)
		}
	}
	text = addr.CanonicalHost(strings.Trim(text, "[]"))
	if text == "" {
		return false
	}
	for _, a := range []string{m.RaftAddress, api} {
		if host, _, err := net.SplitHostPort(a); err == nil && addr.CanonicalHost(host) == text {
			return true
		}
	}
	return addr.CanonicalHost(m.Host) == text
}

// hostPort removes the scheme from an API address.
func hostPort(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	return strings.TrimSuffix(s, "/")
}
