package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"muster/certs"
	"muster/client"
	"muster/cluster/datadir"
	"muster/store"
)

// readToken decodes a token without verifying it: the cluster does that.
func readToken(text string) (certs.JoinClaims, error) {
	token, err := certs.ParseJoinToken(text)
	if err != nil {
		return certs.JoinClaims{}, fmt.Errorf("the join token cannot be read: %s", strings.TrimPrefix(err.Error(), "certs: "))
	}
	return token.Claims(), nil
}

// checkSameCluster accepts, in a member's directory, the token with which it joined, and rejects one of another
// cluster.
func checkSameCluster(node *datadir.Node, token string) error {
	if token == "" {
		return nil
	}
	claims, err := readToken(token)
	if err != nil {
		return nil // the directory has the identity; a damaged token does not matter
	}
	if claims.ClusterID != node.ClusterID {
		return fmt.Errorf("the data directory belongs to a member of cluster %s and the token is for cluster %s: give an "+
			"empty directory",
			node.ClusterID, claims.ClusterID)
	}
	if claims.NodeID != 0 && claims.NodeID != node.NodeID {
		return fmt.Errorf("the data directory belongs to node %d and the token is for node %d: give an empty directory",
			node.NodeID, claims.NodeID)
	}
	return nil
}

// join requests admission from the members that the token names and writes their answer. A rejection leaves the
// directory as it was. If known is not nil the machine remains that member.
func (n *Node) join(ctx context.Context, known *datadir.Node) (*datadir.Node, error) {
	claims, err := readToken(n.cfg.Join)
	if err != nil {
		return nil, err
	}
	if claims.CAFingerprint == "" || len(claims.Addresses) == 0 {
		return nil, errors.New("the join token does not say where the cluster is (claims caf and adr): " +
			"make one with `muster join-token create`")
	}
	plan := n.plan()
	keys, err := datadir.PrepareJoin(n.dir, plan.Name)
	if err != nil {
		return nil, err
	}
	request, err := joinRequest(plan, n.cfg.Join, keys)
	if err != nil {
		return nil, err
	}
	answer, err := client.Join(ctx, claims.Addresses, pinned(claims.CAFingerprint), request)
	if !plan.NameGiven && nameTaken(err, plan.Name) {
		request.Name = "" // the host's name is only a proposal; the cluster chooses one
		answer, err = client.Join(ctx, claims.Addresses, pinned(claims.CAFingerprint), request)
	}
	var refused *client.Error
	if errors.As(err, &refused) && refused.Status < 500 {
		keys.Abandon(n.dir)
		return nil, fmt.Errorf("the cluster refuses the join: %s", refused.Message)
	}
	if err != nil {
		return nil, explainJoin(err)
	}
	self := admitted(plan, answer)
	if known != nil && (self.ClusterID != known.ClusterID || self.NodeID != known.NodeID) {
		return nil, fmt.Errorf("the cluster takes this machine for node %d of cluster %s, and it was node %d: nothing was "+
			"changed here",
			self.NodeID, self.ClusterID, known.NodeID)
	}
	err = datadir.CompleteJoin(n.dir, datadir.Admission{
		Node: self,
		Leaves: datadir.Leaves{
			HTTP:        []byte(answer.HTTPCert),
			HTTPCA:      []byte(answer.HTTPCA),
			Transport:   []byte(answer.TransportCert),
			TransportCA: []byte(answer.TransportCA),
		},
	})
	if err != nil {
		return nil, err
	}
	for _, w := range answer.Warnings {
		n.cfg.Say("warning: %s", w)
	}
	n.cfg.Say("joined cluster %s as node %d (%s)", self.ClusterID, self.NodeID, self.Name)
	return &self, nil
}

// joinRequest returns the request of this machine.
func joinRequest(plan datadir.Plan, token string, keys *datadir.JoinKeys) (q client.JoinRequest, err error) {
	host, raftPort, err := splitPort(plan.RaftAddress)
	if err != nil {
		return q, err
	}
	_, apiPort, err := splitPort(plan.APIAddress)
	if err != nil {
		return q, err
	}
	q = client.JoinRequest{
		Token:         token,
		AdvertiseAddr: host,
		RaftPort:      raftPort,
		APIPort:       apiPort,
		Mode:          plan.Mode,
		OS:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		Name:          plan.Name,
		BinaryVersion: plan.Version,
		MaxSchema:     store.LatestSchema(),
		RaftAddress:   plan.RaftAddress,
		APIAddress:    plan.APIAddress,
		HTTPCSR:       keys.HTTPCSR,
		TransportCSR:  keys.TransportCSR,
	}
	for _, b := range keys.SecretsPubkey {
		q.SecretsPubkey = append(q.SecretsPubkey, int(b))
	}
	return q, nil
}

func splitPort(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(text, 10, 16)
	return host, uint16(number), err
}

// nameTaken reports whether the cluster rejects only the name.
func nameTaken(err error, name string) bool {
	var refused *client.Error
	return errors.As(err, &refused) && refused.Status == http.StatusConflict &&
		strings.Contains(refused.Message, "the name "+name+" ")
}

// admitted returns the identity that the cluster has assigned to this machine.
func admitted(plan datadir.Plan, answer *client.JoinResponse) datadir.Node {
	self := datadir.Node{
		ClusterID:   answer.ClusterID,
		NodeID:      answer.RaftNodeID,
		ID:          answer.NodeID,
		Name:        answer.Name,
		APIAddress:  plan.APIAddress,
		RaftAddress: plan.RaftAddress,
		Others:      []datadir.Place{},
	}
	for _, p := range answer.Peers {
		self.Others = append(self.Others, datadir.Place{NodeID: p.RaftNodeID, RaftAddress: p.RaftAddress})
	}
	return self
}

// explainJoin adds what an operator should check. It does not wrap the client's error, whose exit status means that no
// member answers and keeps a service manager from restarting a member.
func explainJoin(err error) error {
	hint := ""
	switch {
	case errors.Is(err, certs.ErrPinMismatch), errors.Is(err, certs.ErrUntrusted):
		hint = "the machine that answers is not a member of the token's cluster"
	case errors.Is(err, certs.ErrNotYetValid), errors.Is(err, certs.ErrExpired):
		hint = "the certificate is not valid now by this machine's clock: is the clock set?"
	default:
		hint = "nothing was written that a repetition of the same command would not use"
	}
	return fmt.Errorf("the cluster could not be joined: %v\n%s", err, hint)
}

func pinned(fingerprint string) *tls.Config { return certs.PinnedTLS(fingerprint, time.Now) }
