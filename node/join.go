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

// readToken reads what a token says, without being able to verify it: that is the cluster's part.
func readToken(text string) (certs.JoinClaims, error) {
	token, err := certs.ParseJoinToken(text)
	if err != nil {
		return certs.JoinClaims{}, fmt.Errorf("the join token cannot be read: %s", strings.TrimPrefix(err.Error(), "certs: "))
	}
	return token.Claims(), nil
}

// checkSameCluster lets a member start again with the token it joined with, and with no other cluster's.
func checkSameCluster(node *datadir.Node, token string) error {
	if token == "" {
		return nil
	}
	claims, err := readToken(token)
	if err != nil {
		return nil // the directory says who this is; a token that was shortened since does not matter
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

// join asks the members that the token names to admit this machine and writes what they answer. A refusal leaves the
// directory as it was. With known not nil the machine is that member and stays it.
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
		request.Name = "" // the host's name is a proposal only; the cluster gives one
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

// joinRequest is what this machine asks with.
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

// nameTaken reports whether the cluster refuses the name alone.
func nameTaken(err error, name string) bool {
	var refused *client.Error
	return errors.As(err, &refused) && refused.Status == http.StatusConflict &&
		strings.Contains(refused.Message, "the name "+name+" ")
}

// admitted is who the cluster says that this machine is.
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

// explainJoin tells apart what an operator has to look at. The client's error is not wrapped: to a command it means that
// nobody answers, with an exit status with which a service manager does not start a member again.
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
