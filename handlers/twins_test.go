package handlers_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"muster/client"
	"muster/cluster/autopilot"
	"muster/store"
)

// fieldsOnTheWire lists the JSON names of a struct, those of embedded ones among them.
func fieldsOnTheWire(t reflect.Type) (list []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			list = append(list, fieldsOnTheWire(f.Type)...)
		case name == "-":
		case name == "":
			list = append(list, f.Name)
		default:
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// TestTwins: where the client cannot share a type with those who answer, because that type is no mere wire type, both
// have the same fields.
func TestTwins(t *testing.T) {
	for _, twin := range []struct{ served, read any }{
		{autopilot.State{}, client.Autopilot{}},
		{autopilot.Server{}, client.AutopilotServer{}},
		{autopilot.Config{}, client.AutopilotConfig{}},
		{store.AuditRow{}, client.Event{}},
	} {
		served, read := reflect.TypeOf(twin.served), reflect.TypeOf(twin.read)
		if a, b := fieldsOnTheWire(served), fieldsOnTheWire(read); !slices.Equal(a, b) {
			t.Errorf("%v has %v, %v has %v", served, a, read, b)
		}
	}
}
