package handlers

import (
	"slices"
	"testing"

	"golang.org/x/net/http2"
)

// FuzzHTTP2Frames: frames are found wherever the bytes of a connection are divided, and each counts once.
func FuzzHTTP2Frames(f *testing.F) {
	f.Add([]byte("\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x04\x00\x00\x00\x00\x00"), uint16(7))
	f.Add([]byte("\xff\xff\xff\x00\x00\x00\x00\x00\x01"), uint16(1))
	f.Add([]byte("\x00\x00\x05\x03\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00"), uint16(9))
	f.Fuzz(func(t *testing.T, data []byte, at uint16) {
		seen := func(parts ...[]byte) (list []frameHead) {
			var x frames
			for _, p := range parts {
				x.pass(p, func(h frameHead) bool {
					if h.kind == http2.FrameRSTStream && h.length != codeBytes {
						h.code = 0 // not read
					}
					list = append(list, h)
					return true
				})
			}
			return list
		}
		cut := min(int(at), len(data))
		one, two := seen(data), seen(data[:cut], data[cut:])
		for i := range one { // what is behind the head of another kind is no code
			if one[i].kind != http2.FrameRSTStream {
				one[i].code = 0
			}
		}
		for i := range two {
			if two[i].kind != http2.FrameRSTStream {
				two[i].code = 0
			}
		}
		if !slices.Equal(one, two) {
			t.Fatalf("%+v, and in two parts %+v", one, two)
		}
		c := &framesConn{}
		for i := range one {
			if n := c.idleness(one[i]); n < 0 {
				t.Fatalf("%+v counts as %d", one[i], n)
			}
		}
	})
}
