package native

import (
	"net/url"
	"testing"

	"muster/handlers/internal/handlerstest"
)

func FuzzAuditFilter(f *testing.F) {
	f.Add("since=2030-01-02T15:04:05Z&until=x&actor=a&limit=10&order=desc&after=1.2")
	f.Add("limit=-1")
	f.Add("after=.&limit=99999999999999999999")
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		filter, err := parseAuditFilter(values)
		if err != nil {
			handlerstest.RefusedWell(t, err)
		} else if filter.Limit < 1 || filter.Limit > maxAuditLimit || len(filter.Actor)+len(filter.Action)+
			len(filter.Object) > 3*maxAuditText {
			t.Fatalf("accepted %+v", filter)
		}
	})
}
