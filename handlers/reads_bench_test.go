package handlers_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"muster/internal/netlimit"
)

// BenchmarkReads is a read of a known caller through all that comes before it: TLS, connection limits, the order of a
// request. With -cpuprofile it shows what the limits take.
func BenchmarkReads(b *testing.B) {
	s, addr := servingTLS(b, netlimit.Limits{All: 8192, PerAddress: 1024, Bytes: 1_000_000})
	for _, proto := range []string{"http1", "http2"} {
		b.Run(proto, func(b *testing.B) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 64,
				ForceAttemptHTTP2: proto == "http2"}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, _ := http.NewRequest("GET", "https://"+addr+"/api/v1/cluster/members", nil)
					r.Header.Set("Authorization", "Bearer "+s.Admin)
					resp, err := client.Do(r)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		})
	}
}
