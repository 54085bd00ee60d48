// Package examples holds small files to try an import with.
package examples

import "embed"

// Files are users.csv, urls.csv and events.csv, to be imported in this order.
//
//go:embed users.csv urls.csv events.csv
var Files embed.FS
