package handlers

import (
	"net/http/httptest"
	"strings"
	"testing"

	"muster/store"
)

// What the strangers of an address send is bounded in bytes, too.
func TestStrangersBytes(t *testing.T) {
	x := newRooms(10)
	ip := addressOf(httptest.NewRequest("GET", "/", nil), origin{})
	a, b := x.enter(ip), x.enter(ip)
	if !a.take(strangerBytes-1) || b.take(2) || !b.take(1) {
		t.Error("the bytes of an address are not counted together")
	}
	a.leave()
	if !b.take(strangerBytes - 1) {
		t.Error("bytes were not given back")
	}
	b.leave()
	if len(x.m) != 0 {
		t.Error("a room is left over")
	}
}

// Every list of events is bounded: no type twice.
func TestEventTypesAreBounded(t *testing.T) {
	r := httptest.NewRequest("GET", "/api/v1/events?type=member,member", nil)
	if _, err := parseEventQuery(r); err == nil || err.Error() != "type must name each type once" {
		t.Error(err)
	}
	r = httptest.NewRequest("GET", "/api/v1/events?type="+strings.Join(store.EventTypes, ","), nil)
	if e, err := parseEventQuery(r); err != nil || len(e.types) != len(store.EventTypes) {
		t.Error(e, err)
	}
}
