package store

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// inline appends query to b with every `?` replaced by the SQL literal of the next argument.
//
// A batch travels to dqlite as one text, because each bound statement would be a round trip of its own and
// dqlite takes arguments for single statements only. Placeholders inside string literals, quoted names and
// comments are left alone. Accepted argument types are those that Tx.Exec has normalised: nil, int64, string
// and []byte.
func inline(b *strings.Builder, query string, args []any) error {
	n := 0
	for i := 0; i < len(query); {
		switch c := query[i]; {
		case c == '\'' || c == '"' || c == '`':
			end := closing(query, i)
			b.WriteString(query[i:end])
			i = end
		case c == '-' && strings.HasPrefix(query[i:], "--"):
			end := strings.IndexByte(query[i:], '\n')
			if end < 0 {
				end = len(query) - i
			}
			i += end
		case c == '?':
			if n == len(args) {
				return fmt.Errorf("store: statement has more placeholders than its %d arguments", len(args))
			}
			if err := literal(b, args[n]); err != nil {
				return err
			}
			n++
			i++
		default:
			b.WriteByte(c)
			i++
		}
	}
	if n != len(args) {
		return fmt.Errorf("store: statement has %d placeholders and %d arguments", n, len(args))
	}
	return nil
}

// closing returns the index after the quoted run that starts at i; a doubled quote does not end it.
func closing(s string, i int) int {
	q := s[i]
	for j := i + 1; j < len(s); j++ {
		if s[j] != q {
			continue
		}
		if j+1 < len(s) && s[j+1] == q {
			j++
			continue
		}
		return j + 1
	}
	return len(s)
}

func literal(b *strings.Builder, v any) error {
	switch v := v.(type) {
	case nil:
		b.WriteString("NULL")
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case string:
		if strings.IndexByte(v, 0) >= 0 { // a NUL would end the statement's text
			b.WriteString("CAST(x'")
			b.WriteString(hex.EncodeToString([]byte(v)))
			b.WriteString("' AS TEXT)")
			return nil
		}
		b.WriteByte('\'')
		b.WriteString(strings.ReplaceAll(v, "'", "''"))
		b.WriteByte('\'')
	case []byte:
		b.WriteString("x'")
		b.WriteString(hex.EncodeToString(v))
		b.WriteByte('\'')
	default:
		return fmt.Errorf("store: %T is not a type that a statement takes", v)
	}
	return nil
}
