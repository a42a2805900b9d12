package consul

import (
	"bytes"
	"encoding/json"
	"net/http"

	"muster/handlers"
)

// gzipFrom is the size from which an answer is worth compressing, the original's threshold.
const gzipFrom = 1400

// writeJSON writes v compactly, or with four spaces and a newline when the query says `pretty`.
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
