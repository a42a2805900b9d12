package zlayer

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"muster/handlers/internal/handlerstest"
)

func FuzzParseJoin(f *testing.F) {
	f.Add("application/json",
		[]byte(`{"token":"x","advertise_addr":"127.0.0.1","overlay_port":1,"raft_port":2,"wg_public_key":"k"}`))
	f.Add("application/json; charset=utf-8",
		[]byte(`{"token":"x","advertise_addr":"a","overlay_port":0,"raft_port":1,"wg_public_key":"","labels":{"a":"b"},`+
			`"gpus":[{"vendor":"x"}],"secrets_pubkey":[1]}`))
	f.Add("text/plain", []byte(`{}`))
	f.Add("application/x+json", []byte(`{"http_csr":"AAAA","cpu_total":1e300,"services":["a"]}`))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		r := httptest.NewRequest("POST", "/api/v1/cluster/join", http.NoBody)
		r.Header.Set("Content-Type", kind)
		j, err := parseJoin(r, body)
		if err != nil {
			handlerstest.RefusedWell(t, err)
			return
		}
		m := &j.member
		if m.AdvertiseAddr == "" || m.RaftAddress == "" || m.APIAddress == "" || len(m.Labels) > 64 ||
			!json.Valid(m.Resources) {
			t.Fatalf("accepted %+v", m)
		}
	})
}
