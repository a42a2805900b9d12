package client_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"muster/client"
)

// served stands in for a cluster: it answers each "METHOD /path" with a status and a body.
type served map[string]struct {
	status int
	body   string
}

// start returns the address of the stand-in, and its CA certificate as PEM.
func (s served) start() (addr string, ca []byte, stop func()) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := s[r.Method+" "+r.URL.RequestURI()]
		if !ok {
			answer.status, answer.body = http.StatusNotFound, `{"error":"there is nothing at this path"}`
		}
		w.Header().Set("Content-Type", "application/json")
		if answer.status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(answer.status)
		_, _ = io.WriteString(w, answer.body)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	return server.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), server.Close
}

// On a member's own machine FromData finds address, CA and token; elsewhere FromEnv or a Config of your own.
func Example() {
	addr, ca, stop := served{
		"GET /api/v1/cluster/members": {200,
			`{"result":[{"nodeId":1,"name":"node-1","suffrage":"voter","isLeader":true,"drainState":"active","status":"alive"},
			{"nodeId":2,"name":"node-2","suffrage":"nonvoter","isLeader":false,"drainState":"active","status":"down"}]}`},
	}.start()
	defer stop()

	c, err := client.New(client.Config{Addrs: []string{addr}, Token: "the-token", CACert: ca})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	members, err := c.Members(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range members {
		fmt.Println(m.NodeID, m.Name, m.Suffrage, m.Status)
	}
	// Output:
	// 1 node-1 voter alive
	// 2 node-2 nonvoter down
}

// A token for one machine, bound to an address range. Its text is shown once.
func ExampleClient_CreateJoinToken() {
	addr, ca, stop := served{
		"POST /api/v1/cluster/join-tokens": {201,
			`{"result":{"id":"01a1fc65","token":"AQAAAV97…","format":"muster","bindCidr":"10.0.0.0/8","maxUses":1,` +
				`"expiresAt":"2026-11-21T05:07:26Z"}}`},
	}.start()
	defer stop()

	c, err := client.New(client.Config{Addrs: []string{addr}, CACert: ca})
	if err != nil {
		log.Fatal(err)
	}
	token, err := c.CreateJoinToken(context.Background(),
		client.JoinTokenRequest{TTL: 30 * time.Minute, BindCIDR: "10.0.0.0/8"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Token, "until", token.ExpiresAt.Format(time.TimeOnly))
	// Output: AQAAAV97… until 05:07:26
}

// Draining without a deadline blocks until the member is drained: the context says for how long at most. Then it can be
// removed without force.
func ExampleClient_DrainMember() {
	addr, ca, stop := served{
		"POST /api/v1/cluster/members/3/drain": {200, `{"result":{"drainState":"drained"}}`},
		"DELETE /api/v1/cluster/members/3":     {200, `{"result":{"message":"Cluster member removed"}}`},
	}.start()
	defer stop()

	c, err := client.New(client.Config{Addrs: []string{addr}, CACert: ca})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	state, err := c.DrainMember(ctx, 3, 0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("node 3 is", state)
	fmt.Println(c.RemoveMember(ctx, 3, false))
	// Output:
	// node 3 is drained
	// 0 <nil>
}

// A refusal carries the server's own sentence; nothing has changed.
func ExampleError() {
	addr, ca, stop := served{
		"POST /api/v1/cluster/members/2/promote": {409, `{"error":"Node is already a voter"}`},
	}.start()
	defer stop()

	c, err := client.New(client.Config{Addrs: []string{addr}, CACert: ca})
	if err != nil {
		log.Fatal(err)
	}
	err = c.PromoteMember(context.Background(), 2)
	var refused *client.Error
	if errors.As(err, &refused) && refused.Status == http.StatusConflict {
		fmt.Println("refused:", refused.Message)
	}
	// Output: refused: Node is already a voter
}

// With several addresses a call goes on to the next one when a member cannot be reached.
func ExampleConfig_several() {
	addr, ca, stop := served{
		"GET /api/v1/status": {200,
			`{"result":{"version":"v1.0.0","ready":true,"cluster":{"role":"Leader","nodeId":2,"isLeader":true}}}`},
	}.start()
	defer stop()

	nobody := "127.0.0.1:1" // a member that is down
	c, err := client.New(client.Config{Addrs: []string{nobody, addr}, CACert: ca})
	if err != nil {
		log.Fatal(err)
	}
	st, err := c.Status(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("node", st.Cluster.NodeID, "answered")
	// Output: node 2 answered
}

// When no address answers, the error names each with its cause.
func ExampleNoServerError() {
	c, err := client.New(client.Config{Addrs: []string{"127.0.0.1:1"}})
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.Members(context.Background())
	fmt.Println(errors.Is(err, client.ErrNoServer), err)
	// Output: true no answer from https://127.0.0.1:1: connection refused
}
