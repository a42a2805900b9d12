package attack

import (
	"fmt"
	"net/url"
	"strings"
)

// Attack is one way to take a member's memory or to keep others out. Do blocks until everything is sent.
type Attack struct {
	Name string
	Do   func(*Attacker)
}

const joinHead = "POST /api/v1/cluster/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

// OfRequests are the attacks on the listener for clients. One of them shows a credential that allows nothing.
func OfRequests(credential string) []Attack {
	return []Attack{
		{"filters", func(a *Attacker) { Crowd(250, func(int) { a.Filter() }) }},
		{"paths", func(a *Attacker) {
			Crowd(50, func(int) {
				a.Say("GET /?filter_path=" + strings.Repeat("**.", 2000) +
					"x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n")
			})
		}},
		{"windows", func(a *Attacker) { Crowd(40, func(int) { a.Windowless("/api/v1/openapi.yaml", 250) }) }},
		{"windows of all that is open", func(a *Attacker) {
			open := []string{"/metrics", "/.well-known/http.crl", "/.well-known/transport.crl", "/.well-known/jwks.json",
				"/ui/", "/ui/app.js", "/api/v1/status"}
			Crowd(10*len(open), func(i int) { a.Windowless(open[i%len(open)], 100) })
		}},
		{"windows of the metrics", func(a *Attacker) { Crowd(20, func(int) { a.Windowless("/metrics", 100) }) }},
		{"bodies of a key without scopes", func(a *Attacker) {
			part := strings.Repeat("x", 990_000)
			Crowd(300, func(int) {
				a.Say("POST /v1/peering/token HTTP/1.1\r\nHost: x\r\nAuthorization: " + credential +
					"\r\nContent-Length: 1000000\r\n\r\n" + part)
			})
		}},
		{"joins of many values", func(a *Attacker) {
			body := `{"gpus":[` + strings.TrimSuffix(strings.Repeat("{},", 330_000), ",") + "]}"
			Crowd(60, func(int) { a.Say(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", joinHead, len(body), body)) })
		}},
		{"half-sent", func(a *Attacker) {
			Crowd(2000, func(int) { a.Say(joinHead + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 1000)) })
		}},
		{"blocking", func(a *Attacker) {
			Crowd(2000, func(int) {
				a.Say("GET /v1/peerings?index=1&wait=10m HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
			})
		}},
		{"frames", func(a *Attacker) { Crowd(64, a.Frames) }},
		{"idle", func(a *Attacker) { Crowd(3000, func(int) { a.Dial("h2") }) }},
		{"all at once", (*Attacker).AllAtOnce},
	}
}

// Filter asks for a list with an expression that is costly to compile.
func (a *Attacker) Filter() {
	a.Say("GET /v1/peerings?filter=" + url.QueryEscape(strings.Repeat("(", 12)) + " HTTP/1.1\r\nHost: x\r\n\r\n")
}

// AllAtOnce half-sends 1 000 requests, and holds 500 silent connections and 100 filters.
func (a *Attacker) AllAtOnce() {
	Crowd(1600, func(i int) {
		switch {
		case i < 1000:
			a.Say(joinHead + "Content-Length: 100\r\n\r\n{")
		case i < 1500:
			a.Dial("h2")
		default:
			a.Filter()
		}
	})
}
