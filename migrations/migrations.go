// Package migrations holds the numbered SQL files that make the schema.
//
// A file that has been released is never changed; a change of the schema is a
// new file that keeps the previous release running (expand, deploy, contract).
// sqlc reads the same files, so the generated queries cannot drift from them.
package migrations

import "embed"

// FS holds the goose migration files, applied in the order of their names.
//
//go:embed *.sql
var FS embed.FS
