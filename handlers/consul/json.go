package consul

import (
	"bytes"
	"encoding/json"
	"net/http"

	"muster/handlers"
)

// gzipFrom is the minimum size in bytes of compressed answers, as in the original.
const gzipFrom = 1400

// writeJSON writes v compactly, or with `pretty` indented by four spaces and with a final newline.
func writeJSON(q *handlers.Request, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, pretty := q.URL.Query()["pretty"]; pretty {
		var b bytes.Buffer
		if err := json.Indent(&b, data, "", "    "); err != nil {
			return err
		}
		data = append(b.Bytes(), '\n')
	}
	return q.Send(http.StatusOK, "application/json", data, gzipFrom)
}
