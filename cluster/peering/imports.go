package peering

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"

	"muster/internal/addr"
	"muster/internal/timing"
	"muster/store"
)

// gather assembles a list. A complete one replaces one that was not applied yet.
func (s *stream) gather(m *membersFrame) error {
	if m.First {
		s.pending, s.size = []store.PeerMember{}, 0
	} else if s.pending == nil {
		return errors.New("the peer's list of members has no beginning")
	}
	if len(s.pending)+len(m.List) > maxPeerMembers {
		return fmt.Errorf("the peer exports more than %d members", maxPeerMembers)
	}
	for i := range m.List {
		if !isPeerMember(&m.List[i]) {
			return errors.New("the peer's list of members has an invalid member")
		}
		s.size += m.List[i].Size()
	}
	if s.size > maxImportBytes {
		return fmt.Errorf("the peer exports more than %d bytes of members", maxImportBytes)
	}
	s.pending = append(s.pending, m.List...)
	if !m.Last {
		return nil
	}
	known := make(map[string]bool, len(s.pending))
	for i := range s.pending {
		if known[s.pending[i].ID] {
			return errors.New("the peer's list of members has a duplicate")
		}
		known[s.pending[i].ID] = true
	}
	select {
	case <-s.imports:
	default:
	}
	s.imports <- s.pending
	s.pending = nil
	return nil
}

// importAll applies complete lists, one batch at a time, until ctx ends. A newer list replaces the present one.
func (s *stream) importAll(ctx context.Context) {
	var list []store.PeerMember
	budget := s.budgetOf(s.id)
	for {
		if list == nil {
			select {
			case <-ctx.Done():
				return
			case list = <-s.imports:
			}
		}
		if !budget.await(ctx, true) {
			return
		}
		select { // a newer list may have arrived meanwhile
		case list = <-s.imports:
		default:
		}
		n, bytes, err := s.store.Peerings.Import(ctx, actor, s.id, list)
		if n > 0 {
			budget.charge(time.Now(), bytes)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Warn("members of a peer could not be imported yet", "peering", s.name, "err", err)
			if !timing.Rest(ctx, time.Second) {
				return
			}
		case n == 0:
			list = nil
			if !timing.Rest(ctx, importRest) {
				return
			}
		}
	}
}

var (
	peerMemberID = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)
	peerAddress  = regexp.MustCompile(`^[!-~]{0,300}$`)
	peerHealth   = regexp.MustCompile(`^[a-z-]{0,16}$`)
)

// isPeerMember reports whether a value that a peer exports has the form of a member. Its addresses are shown, not
// dialled.
func isPeerMember(m *store.PeerMember) bool {
	return peerMemberID.MatchString(m.ID) && len(m.Name) <= 255 && !strings.ContainsFunc(m.Name, unicode.IsControl) &&
		peerAddress.MatchString(m.RaftAddress) &&
		peerAddress.MatchString(m.APIAddress) && peerHealth.MatchString(m.Health) && m.NodeID <= 1<<53
}

func checkRoots(pems []string) error {
	if len(pems) == 0 || len(pems) > maxPeerRoots {
		return fmt.Errorf("the peer announces %d authorities; 1 to %d are allowed", len(pems), maxPeerRoots)
	}
	for _, text := range pems {
		block, more := pem.Decode([]byte(text))
		if block == nil || block.Type != "CERTIFICATE" || len(text) > maxPeerRoot || len(bytes.TrimSpace(more)) > 0 ||
			len(block.Headers) > 0 {
			return errors.New("the peer announces an authority that is not a certificate")
		}
		if c, err := x509.ParseCertificate(block.Bytes); err != nil || !c.IsCA {
			return errors.New("the peer announces a certificate that is not an authority")
		}
	}
	text, err := json.Marshal(pems)
	if err == nil {
		err = store.CheckSize("peerings", "ca_pems", text)
	}
	return err
}

func checkAddresses(list []string) error {
	if len(list) == 0 || len(list) > maxPeerAddresses {
		return fmt.Errorf("the peer announces %d addresses; 1 to %d are allowed", len(list), maxPeerAddresses)
	}
	for _, a := range list {
		if err := addr.CheckPeer(a); err != nil {
			return fmt.Errorf("the peer announces an address that cannot be dialled: %w", err)
		}
	}
	return nil
}
