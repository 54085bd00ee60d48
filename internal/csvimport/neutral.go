package csvimport

import "strings"

// Neutralize makes a cell of an export harmless for spreadsheets, which run one
// that begins with = + - @, a tab or a carriage return as a formula: it puts an
// apostrophe before it. A cell that has apostrophes before such a character gets
// one more, so that [Restore] gives back every cell exactly.
func Neutralize(cell string) string {
	if runs(strings.TrimLeft(cell, "'")) {
		return "'" + cell
	}
	return cell
}

// Restore undoes [Neutralize], and changes only what that could have made.
func Restore(cell string) string {
	if len(cell) > 1 && cell[0] == '\'' && runs(strings.TrimLeft(cell, "'")) {
		return cell[1:]
	}
	return cell
}

func runs(cell string) bool {
	return cell != "" && strings.IndexByte("=+-@\t\r", cell[0]) >= 0
}

// restores reports whether the file's cells are neutralized as those of
// Signpost's own exports and of rows to be mended are.
func (l Layout) restores() bool { return l.Format == FormatSignpost || l.Mended }
