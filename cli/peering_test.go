package cli

import (
	"regexp"
	"testing"
)

// TestPeeringShow: the addresses that it lists are those that are dialled; what is known besides is marked.
func TestPeeringShow(t *testing.T) {
	const rest = `"StreamStatus":{"ImportedServices":null,"ExportedServices":null,"LastHeartbeat":null},"Remote":{},` +
		`"StatusSince":"2026-05-06T10:00:00Z"`
	outside(t)
	for name, x := range map[string]struct{ answer, dialled, not string }{
		"of the token": {`"Dialer":true,"PeerServerAddresses":["10.0.0.1:7000","10.0.0.2:7000"]`,
			`10\.0\.0\.1:7000 10\.0\.0\.2:7000`, `-`},
		"of the operator": {`"Dialer":true,"PeerServerAddresses":["10.0.0.1:7000","10.0.0.2:7000"],` +
			`"Dials":["a.example:7000","10.0.0.2:7000"]`, `a\.example:7000 10\.0\.0\.2:7000`, `10\.0\.0\.1:7000`},
		"they dial": {`"Dialer":false,"PeerServerAddresses":["10.0.0.1:7000"]`, `-`, `10\.0\.0\.1:7000`},
		"none":      {`"Dialer":false`, `-`, `-`},
	} {
		t.Setenv("MUSTER_TOKEN", "t")
		s := newServer(t, map[string][]string{"GET /v1/peering/b": {`{"ID":"i","Name":"b","State":"ACTIVE",` + x.answer +
			`,` + rest + `}`}})
		code, out, errors := run(t, "peering", "show", "b", "--addr", s.URL, "--cacert", s.caFile(t))
		if code != 0 {
			t.Fatalf("%s: %d %s", name, code, errors)
		}
		for label, want := range map[string]string{"ADDRESSES": x.dialled, "NOT DIALLED": x.not} {
			if !regexp.MustCompile(`(?m)^` + label + ` *` + want + ` *$`).MatchString(out) {
				t.Errorf("%s: want %s %s in\n%s", name, label, want, out)
			}
		}
	}
}
