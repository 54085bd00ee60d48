package api

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// preferred returns the one of the offers that an Accept header prefers, and the first
// of two that it likes equally. It returns "" if the header names none of them, and a
// wildcard names none: clients that accept anything get what is usual.
func preferred(header []byte, offers ...string) (best string) {
	most := 0
	for entry := range bytes.SplitSeq(header, []byte(",")) {
		name, params, _ := bytes.Cut(entry, []byte(";"))
		named := string(bytes.TrimSpace(name))
		i := slices.IndexFunc(offers, func(offer string) bool { return strings.EqualFold(offer, named) })
		if i < 0 {
			continue
		}
		if weight := quality(params); weight > most {
			best, most = offers[i], weight
		}
	}
	return best
}

// prefersHTML reports whether an Accept header prefers a page to JSON.
func prefersHTML(accept []byte) bool {
	return preferred(accept, mimeHTML, mimeJSON) == mimeHTML
}

// acceptsGzip reports whether an Accept-Encoding header allows gzip.
func acceptsGzip(header []byte) bool { return preferred(header, codingGzip) != "" }

const (
	mimeHTML   = "text/html"
	mimeJSON   = "application/json"
	mimeCSV    = "text/csv"
	mimeNDJSON = "application/x-ndjson"
)

// quality returns the weight among the parameters of a media range in
// thousandths, 1000 if there is none and 0 if it cannot be read (RFC 9110, 12.4.2).
func quality(params []byte) int {
	for len(params) > 0 {
		var param []byte
		param, params, _ = bytes.Cut(params, []byte(";"))
		name, value, _ := bytes.Cut(bytes.TrimSpace(param), []byte("="))
		if !bytes.EqualFold(name, []byte("q")) {
			continue
		}
		q, err := strconv.ParseFloat(string(value), 64)
		if err != nil || q < 0 || q > 1 {
			return 0
		}
		return int(q * 1000)
	}
	return 1000
}
