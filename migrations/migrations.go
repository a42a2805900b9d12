// Package migrations holds the numbered schema steps that the leader applies with goose.
package migrations

import "embed"

// FS contains the goose SQL files, numbered from 1 without gaps.
//
//go:embed *.sql
var FS embed.FS

// Latest is the schema version that this binary works with: the number of the newest file.
const Latest = 1
