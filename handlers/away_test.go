package handlers_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/internal/netlimit"
)

// Who takes nothing of the answers that send it away makes few of them wait: the others have no body and end at once.
func TestAnswersThatSendAway(t *testing.T) {
	t.Parallel()
	_, addr := servingTLS(t, netlimit.Limits{}, func(c *sole.Config) { c.Limits.StrangersPerAddress = 1 })
	const connections, streams = 5, 60
	for name, x := range map[string]struct {
		method, status string
		more           []hpack.HeaderField
	}{
		"no place":     {"GET", "503", nil},
		"cross origin": {"POST", "403", []hpack.HeaderField{{Name: "sec-fetch-site", Value: "cross-site"}}},
		"many fields":  {"GET", "431", manyFields(200)},
	} {
		ended := make(chan string, connections*streams)
		for range connections {
			c := dialH2(t, addr)
			_ = c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			go func() {
				for {
					f, err := c.fr.ReadFrame()
					if err != nil {
						return
					}
					if h, ok := f.(*http2.MetaHeadersFrame); ok && h.StreamEnded() {
						ended <- h.PseudoValue("status")
					}
				}
			}()
			for range streams {
				c.buf.Reset()
				for _, h := range append([]hpack.HeaderField{{Name: ":method", Value: x.method}, {Name: ":scheme", Value: "https"},
					{Name: ":authority", Value: "x"}, {Name: ":path", Value: "/api/v1/status"}}, x.more...) {
					_ = c.enc.WriteField(h)
				}
				_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: c.buf.Bytes(), EndStream: true,
					EndHeaders: true})
				c.next += 2
			}
		}
		for range connections*streams - handlers.AwayPerAddress - 1 {
			select {
			case status := <-ended:
				if status != x.status {
					t.Fatalf("%s: %s", name, status)
				}
			case <-time.After(sole.Generous):
				t.Fatalf("%s: answers wait for a client that takes nothing", name)
			}
		}
	}
}

func manyFields(n int) (list []hpack.HeaderField) {
	for i := range n {
		list = append(list, hpack.HeaderField{Name: "x-" + strings.Repeat("x", i%7), Value: "x"})
	}
	return list
}
