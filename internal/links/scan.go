package links

import "strings"

// scanMark is the first parameter of the query of a short URL in a QR code. It has no
// value. It is a parameter and no part of the path, so that it cannot be taken for a
// code, and it is short, since each character makes the picture finer.
const scanMark = "qr"

// ScanURL returns the address that the QR code of a short URL holds. By its mark, a
// redirect tells those who scanned the code from those who clicked.
func ScanURL(shortURL string) string { return shortURL + "?" + scanMark }

// CutScan takes the mark of [ScanURL] off the query of a visit, and reports whether it
// was there. The mark stays what it is if further parameters were appended, or if a
// program wrote it with the equals sign of an empty value. A parameter qr that has a
// value, or is not the first, is the visitor's own. CutScan allocates nothing.
func CutScan(query string) (rest string, scanned bool) {
	rest, found := strings.CutPrefix(query, scanMark)
	if !found {
		return query, false
	}
	rest = strings.TrimPrefix(rest, "=")
	if rest == "" {
		return "", true
	}
	if rest[0] != '&' {
		return query, false
	}
	return rest[1:], true
}
