// Command op is a real OpenID provider for tests: the one that the library of Zitadel makes, with its pages for people,
// its device flow and its storage in memory. The claims of a person are at its userinfo endpoint and not in ID tokens,
// as OpenID Connect Core 1.0, section 5.4, has it; the claim groups takes the scope of that name.
//
//	op CLIENT REDIRECT…    listens on a free port of loopback and prints its issuer
//
// The person ada has the password "lovelace" and is in the groups dev and ops; eve has the password "dropper" and is in
// none.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: op CLIENT REDIRECT…")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	id := os.Args[1]
	registered := storage.NativeClient(id, os.Args[2:]...)
	inner := storage.NewStorageWithClients(people{}, map[string]*storage.Client{id: registered})
	issuer := "http://" + listener.Addr().String()
	handler := exampleop.SetupServer(issuer, &memory{inner, client{registered}},
		slog.New(slog.NewTextHandler(os.Stderr, nil)), false)
	fmt.Println(issuer)
	log.Fatal(http.Serve(listener, handler))
}

// client may use the device flow as well, and the scope groups.
type client struct{ op.Client }

func (c client) GrantTypes() []oidc.GrantType {
	return append(c.Client.GrantTypes(), oidc.GrantTypeDeviceCode)
}
func (c client) IsScopeAllowed(scope string) bool { return scope == "groups" }

// memory is the library's example of a storage, with one client and groups.
type memory struct {
	*storage.Storage
	client client
}

func (m *memory) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	if id != m.client.GetID() {
		return m.Storage.GetClientByClientID(ctx, id)
	}
	return m.client, nil
}

func (m *memory) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, tokenID, subject, origin string) error {
	if err := m.Storage.SetUserinfoFromToken(ctx, info, tokenID, subject, origin); err != nil {
		return err
	}
	if p, ok := everybody[subject]; ok && len(p.groups) > 0 {
		info.AppendClaims("groups", p.groups)
	}
	return nil
}

type person struct {
	storage.User
	groups []string
}

var everybody = map[string]person{
	"ada": {storage.User{
		ID:            "ada",
		Username:      "ada",
		Password:      "lovelace",
		FirstName:     "Ada",
		LastName:      "Lovelace",
		Email:         "ada@example.org",
		EmailVerified: true,
	}, []string{"dev", "ops"}},
	"eve": {storage.User{
		ID:            "eve",
		Username:      "eve",
		Password:      "dropper",
		FirstName:     "Eve",
		LastName:      "Dropper",
		Email:         "eve@example.org",
		EmailVerified: true,
	}, nil},
}

type people struct{}

func (people) GetUserByID(id string) *storage.User {
	if p, ok := everybody[id]; ok {
		return &p.User
	}
	return nil
}

func (p people) GetUserByUsername(name string) *storage.User { return p.GetUserByID(name) }
func (people) ExampleClientID() string                       { return "service" }
