package zlayer

import (
	"reflect"
	"strings"
	"testing"

	"muster/client"
)

// TestTwins: the client reads every field of the answer to a join, and of a peer in it.
func TestTwins(t *testing.T) {
	for _, twin := range []struct{ served, read any }{{joinResponse{}, client.JoinResponse{}},
		{joinPeer{}, client.JoinPeer{}}} {
		served, read := reflect.TypeOf(twin.served), reflect.TypeOf(twin.read)
		names := map[string]bool{}
		for i := range read.NumField() {
			name, _, _ := strings.Cut(read.Field(i).Tag.Get("json"), ",")
			names[name] = true
		}
		for i := range served.NumField() {
			if name, _, _ := strings.Cut(served.Field(i).Tag.Get("json"), ","); !names[name] {
				t.Errorf("%v has %s, and %v has not", served, name, read)
			}
		}
	}
}
