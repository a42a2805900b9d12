package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster/internal/naming"
)

// Fields reads a JSON object field by field. It keeps the first error, a sentence that names the field and the rule;
// reads after it return zero values. Like the originals it matches field names case-insensitively and ignores unknown
// fields; End does not.
type Fields struct {
	Raw    map[string]json.RawMessage
	Status int // of errors about a value
	Err    error
	known  []string // names that were asked for
}

// ParseFields reads the object in a body; a bad value is a 400.
func ParseFields(body []byte) (*Fields, error) {
	var m map[string]json.RawMessage
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, Fail(http.StatusBadRequest, "the body must be a JSON object")
	}
	if err := DecodeJSON(body, &m); err != nil || m == nil {
		return nil, Fail(http.StatusBadRequest, "the body must be a JSON object")
	}
	return &Fields{Raw: lowered(m), Status: http.StatusBadRequest}, nil
}

func lowered(m map[string]json.RawMessage) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(m))
	for k, v := range m {
		out[strings.ToLower(k)] = v
	}
	return out
}

func (f *Fields) Refuse(format string, args ...any) {
	if f.Err == nil {
		f.Err = Fail(f.Status, fmt.Sprintf(format, args...))
	}
}

// End returns the first error, or one that names a field which no read has asked for. muster's own endpoints end with
// it: a misspelt ttlSeconds must not make a token without end.
func (f *Fields) End() error {
	for _, name := range slices.Sorted(maps.Keys(f.Raw)) {
		if slices.ContainsFunc(f.known, func(known string) bool { return strings.EqualFold(known, name) }) {
			continue
		}
		f.Refuse("%.64q is not a field of this request; %s", name, naming.Suggest(name, f.known))
	}
	return f.Err
}

func (f *Fields) ask(name string) {
	if !slices.Contains(f.known, name) {
		f.known = append(f.known, name)
	}
}

// Get decodes a field into v and reports whether it was present; what describes the expected value in the error text.
func (f *Fields) Get(name string, required bool, what string, v any) bool {
	f.ask(name)
	raw, ok := f.Raw[strings.ToLower(name)]
	if !ok || string(raw) == "null" {
		if required {
			f.Refuse("%s is required and must be %s", name, what)
		}
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		f.Refuse("%s must be %s", name, what)
		return false
	}
	return f.Err == nil
}

// Text reads a string of least to most bytes, which is not blank unless it may be empty.
func (f *Fields) Text(name string, required bool, least, most int) (s string) {
	if !f.Get(name, required, "a string", &s) {
		return ""
	}
	if len(s) < least || len(s) > most || !utf8.ValidString(s) {
		f.Refuse("%s must be a string of %d to %d bytes", name, least, most)
	} else if least > 0 && strings.TrimSpace(s) == "" {
		f.Refuse("%s must not be blank", name)
	}
	return s
}

// Line is Text without control characters, for values that appear in lists and logs.
func (f *Fields) Line(name string, required bool, least, most int) string {
	s := f.Text(name, required, least, most)
	if strings.ContainsFunc(s, unicode.IsControl) {
		f.Refuse("%s must not contain control characters", name)
	}
	return s
}

func (f *Fields) Texts(name string, required bool) (list []string) {
	f.Get(name, required, "an array of strings", &list)
	return list
}

// Integer reads an integer within bounds; 0 when the field is absent.
func (f *Fields) Integer(name string, required bool, least, most int64) (n int64) {
	if !f.Get(name, required, fmt.Sprintf("a whole number between %d and %d", least, most), &n) {
		return 0
	}
	if n < least || n > most {
		f.Refuse("%s must be a whole number between %d and %d", name, least, most)
		return 0
	}
	return n
}

// Has reports whether the field is present and not null.
func (f *Fields) Has(name string) bool {
	f.ask(name)
	raw, ok := f.Raw[strings.ToLower(name)]
	return ok && string(raw) != "null"
}

// MaxTokenTTL is the maximum lifetime, in seconds, of a token that expires.
const MaxTokenTTL = 10 * 366 * 24 * 3600

// DefaultTokenTTL is the lifetime, in seconds, of a token created without one.
const DefaultTokenTTL = 1800

const (
	maxLabels     = 64
	maxLabelBytes = 256
)

// Labels reads a map of strings.
func (f *Fields) Labels(name string) (m map[string]string) {
	if !f.Get(name, false, "an object of strings", &m) {
		return nil
	}
	if len(m) > maxLabels {
		f.Refuse("%s must have at most %d entries", name, maxLabels)
	}
	for k, v := range m {
		if k == "" || len(k) > maxLabelBytes || len(v) > maxLabelBytes {
			f.Refuse("%s must have keys of 1 to %d bytes and values of at most %d bytes", name, maxLabelBytes, maxLabelBytes)
		}
		if strings.ContainsFunc(k+v, unicode.IsControl) {
			f.Refuse("%s must not contain control characters", name)
		}
	}
	return m
}
