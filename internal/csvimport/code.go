package csvimport

// codeColumns are the positions that a link's short code may be read from.
type codeColumns struct {
	code int
}

func (l Layout) codeColumns() codeColumns {
	return codeColumns{code: l.position(colShortCode)}
}

// of returns the short code of record, unchecked; "" if it has none.
func (c codeColumns) of(record Record, restore bool) string {
	code := record.field(c.code)
	if restore {
		return Restore(code)
	}
	return code
}
