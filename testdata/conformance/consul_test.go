package conformance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
)

func consulClient(t *testing.T, c *cluster, addr, token string) *consul.Peerings {
	t.Helper()
	client, err := consul.NewClient(&consul.Config{Address: addr, Token: token, TLSConfig: consul.TLSConfig{CAFile: c.ca}})
	if err != nil {
		t.Fatal(err)
	}
	return client.Peerings()
}

// The peering API with the official Go client, between a cluster of three and one of a single member.
func TestConsulPeering(t *testing.T) {
	t.Parallel()
	acceptor, dialer := start(t, 3), start(t, 1)
	at := func(i int) *consul.Peerings { return consulClient(t, acceptor, acceptor.addrs[i], acceptor.token) }
	there := consulClient(t, dialer, dialer.addrs[0], dialer.token)

	t.Run("errors of reading", func(t *testing.T) {
		if _, _, err := at(1).Read(t.Context(), "", nil); err == nil || err.Error() != "peering name cannot be empty" {
			t.Errorf("an empty name: %v", err)
		}
		p, meta, err := at(1).Read(t.Context(), "nobody", nil)
		if p != nil || meta == nil || err != nil {
			t.Errorf("an unknown name: %v, %v, %v", p, meta, err)
		}
	})
	t.Run("list", func(t *testing.T) {
		list, meta, err := at(0).List(t.Context(), nil)
		if err != nil || len(list) != 0 || meta.LastIndex == 0 || !meta.KnownLeader {
			t.Fatalf("%v, %+v, %v", list, meta, err)
		}
		for i, name := range []string{"foo", "bar"} {
			if _, _, err := at(i).GenerateToken(t.Context(), consul.PeeringGenerateTokenRequest{PeerName: name},
				nil); err != nil {
				t.Fatal(err)
			}
		}
		list, _, err = at(2).List(t.Context(), nil)
		if err != nil || len(list) != 2 || list[0].Name != "bar" {
			t.Fatalf("%v, %v", list, err)
		}
		for i, p := range list {
			one, _, err := at(i).Read(t.Context(), p.Name, nil)
			if err != nil || !reflect.DeepEqual(one, p) {
				t.Errorf("read and list differ: %+v, %+v, %v", one, p, err)
			}
			if _, err := at(i).Delete(t.Context(), p.Name, nil); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("external addresses", func(t *testing.T) {
		answer, _, err := at(2).GenerateToken(t.Context(),
			consul.PeeringGenerateTokenRequest{PeerName: "ext", ServerExternalAddresses: []string{"32.1.2.3:8502"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		data, err := base64.StdEncoding.DecodeString(answer.PeeringToken)
		if err != nil {
			t.Fatal(err)
		}
		var token struct{ ServerAddresses, ManualServerAddresses []string }
		if err := json.Unmarshal(data, &token); err != nil || len(token.ServerAddresses) != 3 ||
			!reflect.DeepEqual(token.ManualServerAddresses, []string{"32.1.2.3:8502"}) {
			t.Errorf("%+v, %v", token, err)
		}
		if _, err := at(0).Delete(t.Context(), "ext", nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("access control", func(t *testing.T) {
		for _, x := range []struct{ token, want string }{{"anonymous", "Permission denied"}, {"", "Permission denied"},
			{"wrong", "ACL not found"}} {
			p := consulClient(t, acceptor, acceptor.addrs[1], x.token)
			_, _, e1 := p.GenerateToken(t.Context(), consul.PeeringGenerateTokenRequest{PeerName: "x"}, nil)
			_, _, e2 := p.Read(t.Context(), "x", nil)
			_, _, e3 := p.List(t.Context(), nil)
			_, e4 := p.Delete(t.Context(), "x", nil)
			for i, err := range []error{e1, e2, e3, e4} {
				if err == nil || !strings.Contains(err.Error(), "403 ("+x.want) {
					t.Errorf("token %q, call %d: %v, want %s", x.token, i, err, x.want)
				}
			}
		}
	})
	t.Run("life", func(t *testing.T) { testConsulLife(t, acceptor, at, there) })
}

// testConsulLife takes a peering from its token to its end.
func testConsulLife(t *testing.T, acceptor *cluster, at func(int) *consul.Peerings, there *consul.Peerings) {
	ctx := t.Context()
	answer, _, err := at(1).GenerateToken(ctx,
		consul.PeeringGenerateTokenRequest{PeerName: "cluster-02", Meta: map[string]string{"foo": "bar"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, meta, err := at(2).Read(ctx, "cluster-02", nil)
	if err != nil || p.State != consul.PeeringStatePending || p.Meta["foo"] != "bar" || meta.LastIndex != p.ModifyIndex {
		t.Fatalf("%+v, %+v, %v", p, meta, err)
	}
	if _, _, err := there.Establish(ctx,
		consul.PeeringEstablishRequest{PeerName: "cluster-01", PeeringToken: answer.PeeringToken,
			Meta: map[string]string{"foo": "baz"}}, nil); err != nil {
		t.Fatal(err)
	}
	p, _, err = there.Read(ctx, "cluster-01", nil)
	if err != nil || p.State != consul.PeeringStateEstablishing || p.Meta["foo"] != "baz" {
		t.Fatalf("%+v, %v", p, err)
	}
	// A blocking query on a follower sees the peering become active.
	index := meta.LastIndex
	for p, _, err = at(1).Read(ctx, "cluster-02", nil); err == nil && p.State != consul.PeeringStateActive; {
		var q *consul.QueryMeta
		if p, q, err = at(1).Read(ctx, "cluster-02",
			&consul.QueryOptions{WaitIndex: index, WaitTime: 20 * time.Second}); err == nil {
			if q.LastIndex <= index {
				t.Fatalf("no change within 20 s: %+v", p)
			}
			index = q.LastIndex
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	acceptor.eventually("both sides are active and list it", func() error {
		for _, x := range []struct {
			api  *consul.Peerings
			name string
		}{{at(0), "cluster-02"}, {there, "cluster-01"}} {
			list, _, err := x.api.List(ctx, nil)
			if err != nil {
				return err
			}
			if len(list) != 1 || list[0].Name != x.name || list[0].State != consul.PeeringStateActive ||
				len(list[0].StreamStatus.ImportedServices) == 0 {
				return fmt.Errorf("%s: %+v", x.name, list)
			}
		}
		return nil
	})
	if _, _, err := there.Establish(ctx,
		consul.PeeringEstablishRequest{PeerName: "cluster-01", PeeringToken: answer.PeeringToken}, nil); err == nil ||
		!strings.Contains(err.Error(), "403 (a new peering token must be generated: invalid peering establishment secret)") {
		t.Errorf("the token used again: %v", err)
	}
	if _, err := at(1).Delete(ctx, "cluster-02", nil); err != nil {
		t.Fatal(err)
	}
	acceptor.eventually("the peering is gone here and terminated there", func() error {
		p, _, err := at(2).Read(ctx, "cluster-02", nil)
		if err != nil || p != nil {
			return fmt.Errorf("%+v, %v", p, err)
		}
		if p, _, err = there.Read(ctx, "cluster-01", nil); err == nil && p.State != consul.PeeringStateTerminated {
			err = fmt.Errorf("it is %s", p.State)
		}
		return err
	})
}
