package csvimport

import (
	"strings"
	"unicode/utf8"
)

// formulaStarts are the characters that OWASP lists under CSV injection, the
// full-width forms included, which some spreadsheets take for the others.
const formulaStarts = "=+-@\t\r\n＝＋－＠"

// Neutralize makes a cell of an export harmless for spreadsheets. A spreadsheet runs a
// cell as a formula if it begins with one of = + - @, in whatever width, a tab or a
// line end; Neutralize puts an apostrophe before it. If a cell already has apostrophes
// before such a character, it gets one more, so that [Restore] gives back every cell
// exactly.
func Neutralize(cell string) string {
	if runs(strings.TrimLeft(cell, "'")) {
		return "'" + cell
	}
	return cell
}

// Restore undoes [Neutralize]. It changes only cells that Neutralize can have made.
func Restore(cell string) string {
	if len(cell) > 1 && cell[0] == '\'' && runs(strings.TrimLeft(cell, "'")) {
		return cell[1:]
	}
	return cell
}

func runs(cell string) bool {
	first, _ := utf8.DecodeRuneInString(cell)
	return cell != "" && strings.ContainsRune(formulaStarts, first)
}

// restores reports whether the file's cells are neutralized, as they are in Signpost's
// own exports and in files of rejected rows.
func (l Layout) restores() bool { return l.Format == FormatSignpost || l.Mended }
