package node_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/client"
)

// What a credential has begun ends with it, on whichever member: open streams of events and blocking queries over both
// versions of HTTP. Nothing of what comes after its revocation is told.
func TestRevokedOnEveryMember(t *testing.T) {
	g := startGroup(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	made, err := g.c.CreateAPIToken(ctx,
		client.APITokenRequest{Name: "x", Scopes: []string{"cluster:read", "peering:read"}})
	if err != nil {
		t.Fatal(err)
	}
	var all, open sync.WaitGroup
	for i, dir := range g.dirs {
		api, _ := ports(t, dir)
		for _, path := range []string{"/api/v1/events", "/v1/peerings?index=1000000&wait=5m"} {
			for _, two := range []bool{false, true} {
				what := fmt.Sprintf("member %d, %s, HTTP/2 %v", i+1, path, two)
				transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: two,
					DisableKeepAlives: true}
				t.Cleanup(transport.CloseIdleConnections)
				r, err := http.NewRequestWithContext(ctx, "GET", "https://"+api+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+made.Token)
				stream := !strings.Contains(path, "index")
				open.Add(1)
				all.Go(func() {
					if !stream {
						open.Done()
					}
					resp, err := transport.RoundTrip(r)
					for stream && err == nil && resp.StatusCode != 200 && ctx.Err() == nil { // no leader, or not known here yet
						resp.Body.Close()
						time.Sleep(20 * time.Millisecond)
						resp, err = transport.RoundTrip(r)
					}
					if stream {
						open.Done()
					}
					if err != nil {
						t.Errorf("%s: %v", what, err)
						return
					}
					defer resp.Body.Close()
					text, err := io.ReadAll(resp.Body)
					if err != nil || stream != (resp.StatusCode == 200) || strings.Contains(string(text), "secret-to-come") {
						t.Errorf("%s: %d %v %s", what, resp.StatusCode, err, text)
					}
				})
			}
		}
	}
	open.Wait()
	await(t, "the queries wait", func(context.Context) bool {
		return blockingQueries(ctx, t, g.dirs) >= 6
	})
	if err := g.c.RevokeAPIToken(ctx, made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := g.c.CreateAPIToken(ctx,
		client.APITokenRequest{Name: "secret-to-come", Scopes: []string{"cluster:read"}}); err != nil {
		t.Fatal(err)
	}
	all.Wait()
}

// blockingQueries counts those that wait at the members, 0 when one of them does not answer.
func blockingQueries(ctx context.Context, t *testing.T, dirs []string) (n int) {
	t.Helper()
	for _, dir := range dirs {
		api, _ := ports(t, dir)
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
		r, err := http.NewRequestWithContext(ctx, "GET", "https://"+api+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return 0
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		for line := range strings.Lines(string(text)) {
			waiting := 0
			if _, err := fmt.Sscanf(line, "muster_http_blocking_queries %d", &waiting); err == nil {
				n += waiting
			}
		}
	}
	return n
}
