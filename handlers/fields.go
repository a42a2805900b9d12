package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"
)

// fields reads a JSON object field by field. The first thing that is wrong is kept in err, as a sentence that
// names the field and the rule; what is read after it is zero. Field names match without regard to case and
// unknown fields are ignored, as the originals do.
type fields struct {
	m      map[string]json.RawMessage
	status int // of errors about a value
	err    error
}

// parseFields reads the object of a body; a bad value is a 400.
func parseFields(body []byte) (*fields, error) {
	var m map[string]json.RawMessage
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, fail(http.StatusBadRequest, "the body must be a JSON object")
	}
	if err := decodeJSON(body, &m); err != nil || m == nil {
		return nil, fail(http.StatusBadRequest, "the body must be a JSON object")
	}
	return &fields{m: lowered(m), status: http.StatusBadRequest}, nil
}

func lowered(m map[string]json.RawMessage) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(m))
	for k, v := range m {
		out[strings.ToLower(k)] = v
	}
	return out
}

func (f *fields) refuse(format string, args ...any) {
	if f.err == nil {
		f.err = fail(f.status, fmt.Sprintf(format, args...))
	}
}

// get decodes a field into v and tells whether it was there; what is the kind of value for the error text.
func (f *fields) get(name string, required bool, what string, v any) bool {
	raw, ok := f.m[strings.ToLower(name)]
	if !ok || string(raw) == "null" {
		if required {
			f.refuse("%s is required and must be %s", name, what)
		}
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		f.refuse("%s must be %s", name, what)
		return false
	}
	return f.err == nil
}

// text reads a string whose length in bytes is within bounds.
func (f *fields) text(name string, required bool, least, most int) (s string) {
	if !f.get(name, required, "a string", &s) {
		return ""
	}
	if len(s) < least || len(s) > most || !utf8.ValidString(s) {
		f.refuse("%s must be a string of %d to %d bytes", name, least, most)
	}
	return s
}

func (f *fields) texts(name string, required bool) (list []string) {
	f.get(name, required, "an array of strings", &list)
	return list
}

// integer reads a whole number within bounds; 0 when the field is absent.
func (f *fields) integer(name string, required bool, least, most int64) (n int64) {
	if !f.get(name, required, fmt.Sprintf("a whole number between %d and %d", least, most), &n) {
		return 0
	}
	if n < least || n > most {
		f.refuse("%s must be a whole number between %d and %d", name, least, most)
		return 0
	}
	return n
}

// has tells whether the field is there and not null.
func (f *fields) has(name string) bool {
	raw, ok := f.m[strings.ToLower(name)]
	return ok && string(raw) != "null"
}

const (
	maxLabels     = 64
	maxLabelBytes = 256
)

// labels reads a map of strings.
func (f *fields) labels(name string) (m map[string]string) {
	if !f.get(name, false, "an object of strings", &m) {
		return nil
	}
	if len(m) > maxLabels {
		f.refuse("%s must have at most %d entries", name, maxLabels)
	}
	for k, v := range m {
		if k == "" || len(k) > maxLabelBytes || len(v) > maxLabelBytes {
			f.refuse("%s must have keys of 1 to %d bytes and values of at most %d bytes", name, maxLabelBytes, maxLabelBytes)
		}
	}
	return m
}
