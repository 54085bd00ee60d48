package csvimport

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// AppendRecord appends cells to dst as a record that every format reads as the same
// cells: separated by commas and ended by a LF. It quotes the cells that encoding/csv
// quotes, and those that would mean something else without quotes: cells with blanks at
// the end, the words for nothing (such as NULL), and one cell of a record in which all
// cells are empty.
func AppendRecord(dst []byte, cells []string) []byte {
	nothing := !slices.ContainsFunc(cells, func(cell string) bool { return cell != "" })
	for i, cell := range cells {
		if i > 0 {
			dst = append(dst, ',')
		}
		if !needsQuotes(cell) && (i > 0 || !nothing) {
			dst = append(dst, cell...)
			continue
		}
		dst = append(dst, '"')
		for {
			before, after, found := strings.Cut(cell, `"`)
			dst = append(dst, before...)
			if !found {
				break
			}
			dst, cell = append(dst, '"', '"'), after
		}
		dst = append(dst, '"')
	}
	return append(dst, '\n')
}

func needsQuotes(cell string) bool {
	switch cell {
	case "":
		return false
	case `\.`, `\N`, "NULL": // the first ends a COPY of Postgres
		return true
	}
	first, _ := utf8.DecodeRuneInString(cell)
	last, _ := utf8.DecodeLastRuneInString(cell)
	return unicode.IsSpace(first) || unicode.IsSpace(last) || strings.ContainsAny(cell, ",\"\r\n")
}
