package foreign

import (
	"encoding/binary"
	"errors"
	"os"
)

// SQLite parses the whole schema of a file when it opens it, in a time that grows with the square of the number of
// objects. So the schema table is measured before SQLite opens the file. Its tree begins on the first page; the format
// is SQLite's (https://www.sqlite.org/fileformat2.html).

const (
	fileHeader   = 100
	interiorPage = 5
	leafPage     = 13
	utf8Text     = 1
)

var errSchemaPages = errors.New("its schema has another size")

// schemaSize counts the rows of a file's schema and the bytes of their records. It returns errSchemaPages for more than
// most rows, or for pages that are not those of a table.
func schemaSize(path string, most int) (rows int, bytes uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	header := make([]byte, fileHeader)
	if _, err := f.ReadAt(header, 0); err != nil || string(header[:16]) != "SQLite format 3\x00" ||
		binary.BigEndian.Uint32(header[56:]) != utf8Text {
		return 0, 0, errSchemaPages
	}
	size := int64(binary.BigEndian.Uint16(header[16:]))
	if size == 1 {
		size = 1 << 16
	}
	if size < 512 || size&(size-1) != 0 {
		return 0, 0, errSchemaPages
	}
	page := make([]byte, size)
	todo := []uint32{1}
	for seen := 0; len(todo) > 0; seen++ {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n == 0 || seen > 2*most+2 || len(todo) > 2*most+2 { // a tree with that many rows has fewer pages; a cycle has more
			return 0, 0, errSchemaPages
		}
		if _, err := f.ReadAt(page, (int64(n)-1)*size); err != nil {
			return 0, 0, errSchemaPages
		}
		p, err := schemaPage(page, n == 1)
		if err != nil {
			return 0, 0, err
		}
		todo = append(todo, p.children...)
		if rows += p.rows; rows > most {
			return 0, 0, errSchemaPages
		}
		bytes += p.bytes
	}
	return rows, bytes, nil
}

// tablePage is the content of one page of a table.
type tablePage struct {
	children []uint32
	rows     int
	bytes    uint64 // of the records, including overflow pages
}

func schemaPage(page []byte, first bool) (p tablePage, err error) {
	h := page
	if first {
		h = page[fileHeader:]
	}
	cells, pointers := int(binary.BigEndian.Uint16(h[3:])), 8
	switch h[0] {
	case leafPage:
		p.rows = cells
	case interiorPage:
		p.children = append(p.children, binary.BigEndian.Uint32(h[8:]))
		pointers = 12
	default:
		return p, errSchemaPages
	}
	if pointers+2*cells > len(h) {
		return p, errSchemaPages
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(h[pointers+2*i:]))
		if at+4 > len(page) {
			return p, errSchemaPages
		}
		if h[0] == interiorPage {
			p.children = append(p.children, binary.BigEndian.Uint32(page[at:]))
			continue
		}
		n := sqliteVarint(page[at:])
		if p.bytes += n; n > maxSchemaRow {
			return p, errSchemaPages
		}
	}
	return p, nil
}

// maxSchemaRow is larger than any record of our schemas, in bytes.
const maxSchemaRow = 1 << 20

// sqliteVarint reads an integer of up to three bytes. A longer one is too large for a schema row.
func sqliteVarint(b []byte) (n uint64) {
	for i := range min(len(b), 3) {
		n = n<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return n
		}
	}
	return maxSchemaRow + 1
}
