package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"muster/client"
)

// peerFlags make silence on a peering show soon.
func peerFlags(datacenter string) func(int) []string {
	return func(int) []string { return []string{"--peer-ping", "1500ms", "--datacenter", datacenter} }
}

// side is one end of peerings: a cluster, its administrator, and the member that is asked.
type side struct {
	*cluster
	u  *user
	at *member
}

func (s side) post(path string, body any) answer {
	data, _ := json.Marshal(body)
	return s.u.do(s.at, "POST", path, string(data))
}

// via asks another member.
func (s side) via(m *member) side { s.at = m; return s }

type object map[string]any

func (s side) token(t *testing.T, name string, more ...any) string {
	t.Helper()
	body := object{"PeerName": name}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	a := s.post("/v1/peering/token", body)
	var out struct{ PeeringToken string }
	if a.status != 200 || json.Unmarshal([]byte(a.body), &out) != nil || out.PeeringToken == "" {
		t.Fatalf("a token for %s: %v", name, a)
	}
	s.secret("a peering token's secret", parseToken(t, out.PeeringToken).EstablishmentSecret)
	return out.PeeringToken
}

func (s side) establish(name, token string, more ...any) answer {
	body := object{"PeerName": name, "PeeringToken": token}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	return s.post("/v1/peering/establish", body)
}

func (s side) tryPeering(name string) (p client.Peering, a answer) {
	a = s.u.do(s.at, "GET", "/v1/peering/"+name, "")
	_ = json.Unmarshal([]byte(a.body), &p)
	return p, a
}

// await polls until the peering is in the state; "" waits until there is none.
func (s side) await(t *testing.T, name, state string) (p client.Peering) {
	t.Helper()
	eventually(t, formed, fmt.Sprintf("peering %s is %q", name, state), func() error {
		var a answer
		p, a = s.tryPeering(name)
		switch {
		case a.err != nil:
			return a.err
		case state == "" && a.status == 404, a.status == 200 && p.State == state:
			return nil
		}
		return fmt.Errorf("%v", a)
	})
	return p
}

// peer connects two clusters and waits until both say so.
func peer(t *testing.T, acceptor side, name string, dialer side, theirs string) {
	t.Helper()
	dialer.establish(theirs, acceptor.token(t, name)).expect(t, "establish "+theirs, 200, "{}")
	dialer.await(t, theirs, "ACTIVE")
	acceptor.await(t, name, "ACTIVE")
}

// remove deletes a peering and waits until it is gone.
func (s side) remove(t *testing.T, name string) {
	t.Helper()
	s.u.do(s.at, "DELETE", "/v1/peering/"+name, "").expect(t, "delete "+name, 200, "")
	s.await(t, name, "")
}

// tokenText is what a peering token holds.
type peeringToken struct {
	CA                    []string
	ManualServerAddresses []string
	ServerAddresses       []string
	ServerName            string
	PeerID                string
	EstablishmentSecret   string
	Remote                struct {
		Partition, Datacenter string
		Locality              any
	}
}

func parseToken(t *testing.T, text string) (k peeringToken) {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &k)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// with changes a token.
func (k peeringToken) with(change func(*peeringToken)) string {
	change(&k)
	data, _ := json.Marshal(k)
	return base64.StdEncoding.EncodeToString(data)
}

// fakePeer speaks the protocol between clusters by hand.
type fakePeer struct{ *tls.Conn }

func dialFake(t *testing.T, address string, k peeringToken) fakePeer {
	t.Helper()
	roots := x509.NewCertPool()
	for _, pem := range k.CA {
		roots.AppendCertsFromPEM([]byte(pem))
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address,
		&tls.Config{RootCAs: roots, ServerName: k.ServerName, NextProtos: []string{"muster-peer/1"},
			MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return fakePeer{conn}
}

func (f fakePeer) send(text string) {
	_, _ = f.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
}

func (f fakePeer) receive(t *testing.T) string {
	t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(f, data); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// exchange trades the token's secret.
func (f fakePeer) exchange(t *testing.T, k peeringToken) (secret string) {
	t.Helper()
	f.send(fmt.Sprintf(`{"exchange":{"peerId":%q,"secret":%q}}`, k.PeerID, k.EstablishmentSecret))
	var answer struct{ Secret struct{ Secret string } }
	text := f.receive(t)
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Secret.Secret == "" {
		t.Fatalf("the answer to an exchange is %s", text)
	}
	return answer.Secret.Secret
}

// closed waits until the other side has closed the connection.
func (f fakePeer) closed(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, f); err != nil && isTimeout(err) {
		t.Error("the connection stays open")
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
