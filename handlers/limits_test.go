package handlers

import (
	"net/http/httptest"
	"strings"
	"testing"

	"muster/store"
)

// What callers send is bounded in bytes, for each of them and for all together, and counts until the request ends.
func TestBytesOfBodies(t *testing.T) {
	x := newRations(100, 150)
	a, b, c := x.of("a"), x.of("a"), x.of("c")
	if !a.take(99) || b.take(2) || !b.take(1) {
		t.Error("the bytes of one caller are not counted together")
	}
	if c.take(51) || !c.take(50) {
		t.Error("the bytes of all are not counted together")
	}
	a.giveBack()
	a.giveBack()
	if b.take(100) || !b.take(99) {
		t.Error("bytes were not given back once")
	}
	b.giveBack()
	c.giveBack()
	(*ration)(nil).giveBack()
	if len(x.m) != 0 || x.taken != 0 {
		t.Error("something is left over")
	}
}

// Nothing is made of a body that has many small values.
func TestManyValues(t *testing.T) {
	for name, x := range map[string]struct {
		body string
		ok   bool
	}{
		"none":              {"", true},
		"as many as may be": {"[0" + strings.Repeat(",0", maxValues-1) + "]", true},
		"numbers":           {"[0" + strings.Repeat(",0", maxValues) + "]", false},
		"fields":            {"{" + strings.Repeat(`"a":"\"",`, maxValues), false},
		"a text":            {`{"query":"` + strings.Repeat(",", 100_000) + `"}`, true},
		"escaped":           {`{"query":"` + strings.Repeat(`\",`, 50_000) + `"}`, true},
		"after a text":      {`{"query":"\\"` + strings.Repeat(",", maxValues) + `}`, false},
	} {
		if err := CheckValues([]byte(x.body)); (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every list of events is bounded: no type twice.
func TestEventTypesAreBounded(t *testing.T) {
	r := httptest.NewRequest("GET", "/api/v1/events?type=member,member", nil)
	if _, err := parseEventQuery(r); err == nil || err.Error() != "type must not name a type twice" {
		t.Error(err)
	}
	r = httptest.NewRequest("GET", "/api/v1/events?type="+strings.Join(store.EventTypes, ","), nil)
	if e, err := parseEventQuery(r); err != nil || len(e.types) != len(store.EventTypes) {
		t.Error(e, err)
	}
}
