package handlers_test

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"muster/api"
	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/handlers/native/openapi"
	"muster/store"
)

func description(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Document())
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestOpenAPIIsValid: the assembled document is OpenAPI 3.1, and its examples are what its schemas say.
func TestOpenAPIIsValid(t *testing.T) {
	t.Parallel()
	doc := description(t)
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("the document says that it is OpenAPI %s", doc.OpenAPI)
	}
	if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
	tags := map[string]bool{}
	for _, tag := range doc.Tags {
		tags[tag.Name] = true
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Summary == "" || op.Description == "" || len(op.Tags) != 1 || !tags[op.Tags[0]] {
				t.Errorf("%s %s needs a summary, a description and one of the document's tags", method, path)
			}
		}
	}
}

// TestOpenAPIDescribesTheTable walks the table of routes and the document: both have the same operations, and of each
// operation the document says what the table does.
func TestOpenAPIDescribesTheTable(t *testing.T) {
	t.Parallel()
	s, doc := sole.New(t), description(t)
	pattern := regexp.MustCompile(`\{(\w+):[^}]*\}`)
	described := map[string]*openapi3.Operation{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			described[method+" "+path] = op
		}
	}
	for _, rt := range s.Routes() {
		if rt.Family.Name == "ui" { // for people
			continue
		}
		name := rt.Method + " " + pattern.ReplaceAllString(rt.Path, "{$1}")
		op := described[name]
		if op == nil {
			t.Errorf("%s is served and not described", name)
			continue
		}
		delete(described, name)
		t.Run(name, func(t *testing.T) { checkOperation(t, rt, op) })
	}
	for name := range described {
		t.Errorf("%s is described and not served", name)
	}
}

func checkOperation(t *testing.T, rt *handlers.Route, op *openapi3.Operation) {
	scope, _ := op.Extensions["x-muster-scope"].(string)
	if scope != rt.Scope {
		t.Errorf("the scope is %q and described as %q", rt.Scope, scope)
	}
	asks := rt.Scope != "" || rt.Admit != nil // one family wants to know who is calling for everything
	if open := op.Security != nil && len(*op.Security) == 0; open == asks {
		t.Errorf("described as open to everybody: %v; it asks who is calling: %v", open, asks)
	}
	if plain, _ := op.Extensions["x-muster-plain"].(bool); plain != rt.Plain {
		t.Errorf("served without TLS: %v, described: %v", rt.Plain, plain)
	}
	statuses := []int{500, 503} // what every route can answer
	if !rt.Stream && !rt.Whole {
		statuses = append(statuses, 413)
	}
	switch {
	case rt.Family.Denied != nil:
		statuses = append(statuses, 429, 403)
	case rt.Admit != nil:
		statuses = append(statuses, 429, 401, 403)
	case asks:
		statuses = append(statuses, 429, rt.Family.Unauthenticated.Status, rt.Family.Forbidden.Status)
	}
	for _, status := range append(statuses, rt.Family.NoLeader.Status, rt.Family.UnknownOutcome.Status) {
		if op.Responses.Status(status) == nil {
			t.Errorf("the answer %d is not described", status)
		}
	}
	kind := "application/json"
	if rt.Family.Name == "nomad" || rt.Family.Name == "consul" {
		kind = "text/plain"
	}
	for status, response := range op.Responses.Map() {
		if status >= "400" && response.Value.Content.Get(kind) == nil {
			t.Errorf("the family answers errors as %s, %s is described otherwise", kind, status)
		}
		if status == fmt.Sprint(rt.Family.NoLeader.Status) && response.Value.Headers["Retry-After"] == nil {
			t.Errorf("%s has Retry-After, which is not described", status)
		}
	}
}

// Every setting is described: the schema takes no others.
func TestOpenAPIDescribesTheSettings(t *testing.T) {
	t.Parallel()
	described := map[string]bool{}
	properties(description(t).Components.Schemas["Settings"].Value, described)
	for _, o := range store.AllSettings {
		if !described[o.Name] {
			t.Errorf("the setting %s is not described", o.Name)
		}
	}
	if len(described) != len(store.AllSettings) {
		t.Errorf("%d settings are described, and there are %d", len(described), len(store.AllSettings))
	}
}

// TestOpenAPIDescribesTheFields: each field of the wire types of our own endpoints is described, and what is described
// is served.
func TestOpenAPIDescribesTheFields(t *testing.T) {
	t.Parallel()
	doc := description(t)
	for name, served := range map[string]any{
		"Member":     api.Member{},
		"Hook":       api.HookOutcome{},
		"Drain":      api.Drain{},
		"Lease":      api.Lease{},
		"Generation": api.Generation{},
		"Schema":     api.Schema{},
		"SecretInfo": api.SecretInfo{},
		"Difference": api.Difference{},
		"Enrollment": api.Enrollment{},
		"PeerMember": api.PeerMember{},
		"Status":     api.Status{},
		"Whoami":     api.Whoami{},
	} {
		ref := doc.Components.Schemas[name]
		if ref == nil {
			t.Errorf("there is no schema %s", name)
			continue
		}
		described := map[string]bool{}
		properties(ref.Value, described)
		for _, field := range reflect.VisibleFields(reflect.TypeOf(served)) {
			if field.Anonymous {
				continue
			}
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !described[key] {
				t.Errorf("%s has the field %q, which is not described", name, key)
			}
			delete(described, key)
		}
		for key := range described {
			t.Errorf("%s is described with the field %q, which is not served", name, key)
		}
	}
}

// properties collects those of a schema and of what it is put together from.
func properties(schema *openapi3.Schema, names map[string]bool) {
	for name := range schema.Properties {
		names[name] = true
	}
	for _, part := range schema.AllOf {
		properties(part.Value, names)
	}
}
