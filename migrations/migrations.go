// Package migrations holds the numbered schema steps that the leader applies with goose.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed *.sql
var files embed.FS

// FS contains the goose SQL files, numbered from 1 without gaps, and Latest is the number of the newest: the schema
// version that this binary works with. They are variables so that a test can act as a later version.
var (
	FS     fs.FS = files
	Latest int64 = 6
)
