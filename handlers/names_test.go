package handlers_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
	"muster/store"
)

// byName are the places of the API that take a member by a text. MEMBER stands for the text. The id of a transfer of
// leadership is not among them: it is documented to be a UUID.
var byName = []string{
	"GET /api/v1/cluster/members/MEMBER",
	"POST /api/v1/cluster/members/MEMBER/resume",
	"POST /api/v1/cluster/members/MEMBER/promote",
	"POST /api/v1/cluster/members/MEMBER/drain",
	"DELETE /api/v1/cluster/members/MEMBER",
	"GET /api/v1/cluster/leases?nodeId=MEMBER",
	"GET /api/v1/cluster/certificates?nodeId=MEMBER",
	"GET /api/v1/audit?node=MEMBER",
	"GET /api/v1/audit?stale&node=MEMBER",
	"DELETE /v1/operator/raft/peer?id=MEMBER",
	"DELETE /v1/operator/raft/peer?address=MEMBER",
	"PUT /v1/operator/raft/transfer-leadership?address=MEMBER",
	"POST /v1/operator/raft/transfer-leadership?address=MEMBER",
}

// TestEveryNameOfAMember: each place answers each name of a member as it answers its number, tells a name that several
// have from one that nobody has, and there is no place that is not tried.
func TestEveryNameOfAMember(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	me, err := s.Store.Members.Get(t.Context(), store.AsLeader, 1)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(place, text string) (int, string) {
		method, target, _ := strings.Cut(place, " ")
		w := s.Call(method, strings.ReplaceAll(target, "MEMBER", url.QueryEscape(text)), s.Admin, "")
		return w.Code, w.Body.String()
	}
	for _, place := range byName {
		address := strings.Contains(place, "address=")
		names := []string{me.ID, strings.ToUpper(me.ID), "one", "one.global", "127.0.0.1:7001", "127.0.0.1:5001", "127.0.0.1"}
		like := "1"
		if address {
			names, like = []string{"127.0.0.1:5001"}, "127.0.0.1:7001"
		}
		if strings.HasSuffix(place, "/drain") { // nobody carries one out here
			names = nil
		} else {
			names = append([]string{like}, names...)
		}
		reference, text := 0, ""
		for _, name := range names {
			if reference == 0 {
				reference, text = ask(place, name)
			}
			if code, body := ask(place, name); code != reference || code == http.StatusNotFound {
				t.Errorf("%s: %q is answered %d %s, its number %d %s", place, name, code, body, reference, text)
			}
		}
		if code, body := ask(place, "10.9.9.9:1"); code < 400 || code == http.StatusConflict {
			t.Errorf("%s: nobody is answered %d %s", place, code, body)
		}
		if strings.HasSuffix(place, "/members/MEMBER") { // without a name, the path of the list
			continue
		}
		if code, body := ask(place, ""); code < 400 {
			t.Errorf("%s: no name is answered %d %s", place, code, body)
		}
	}
	var described []string
	for path, item := range description(t).Paths.Map() {
		for method, op := range item.Operations() {
			if strings.HasPrefix(path, "/api/v1/cluster/members/{id}") {
				described = append(described, method+" "+strings.Replace(path, "{id}", "MEMBER", 1))
			}
			for _, p := range op.Parameters {
				if p.Value.In == "query" && strings.Contains(p.Value.Description, "host name") {
					described = append(described, method+" "+path+"?"+p.Value.Name+"=MEMBER")
				}
				if p.Value.In == "query" && slices.Contains([]string{"node", "nodeId"}, p.Value.Name) &&
					!p.Value.Schema.Value.Type.Is("string") {
					t.Errorf("%s %s: %s is no text", method, path, p.Value.Name)
				}
			}
		}
	}
	for _, place := range described {
		if !slices.Contains(byName, place) {
			t.Errorf("%s is not tried", place)
		}
	}
	if len(described) < 10 {
		t.Errorf("only %q are described", described)
	}
}

// TestAmbiguousNames: a name that several members have is a conflict everywhere, and the answer lists them.
func TestAmbiguousNames(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, `{}`)
	var token struct{ Result struct{ ID string } }
	if err := json.Unmarshal(w.Body.Bytes(), &token); err != nil || token.Result.ID == "" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if _, err := s.Store.Members.Join(t.Context(), store.Actor{Name: "test"},
		store.Joiner{TokenID: token.Result.ID, Member: store.Member{
			Name:        "two",
			Mode:        store.ModeFull,
			Recipient:   "r",
			RaftAddress: "127.0.0.1:7002",
			APIAddress:  "127.0.0.1:5002",
		}}); err != nil {
		t.Fatal(err)
	}
	for _, place := range byName {
		// needs a port; may not know the second one yet
		if strings.Contains(place, "transfer") || strings.Contains(place, "stale") {
			continue
		}
		method, target, _ := strings.Cut(place, " ")
		w := s.Call(method, strings.ReplaceAll(target, "MEMBER", "127.0.0.1"), s.Admin, "")
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "can mean 2 members: 1 (one, ") ||
			!strings.Contains(w.Body.String(), "2 (two, ") {
			t.Errorf("%s is answered %d %s", place, w.Code, w.Body)
		}
	}
}
