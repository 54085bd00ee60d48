package visits

import "bytes"

// LoadsAhead reports whether a value of Sec-Purpose, Purpose, X-Purpose or X-Moz says
// that a browser loads the page ahead of a click: to have it ready (prefetch,
// prerender), or to draw a small picture of it (preview). It allocates nothing.
func LoadsAhead(value []byte) bool {
	for len(value) > 0 {
		token := value
		if i := bytes.IndexAny(value, ";, "); i >= 0 {
			token, value = value[:i], value[i+1:]
		} else {
			value = nil
		}
		for _, word := range [...][]byte{[]byte("prefetch"), []byte("prerender"), []byte("preview")} {
			if bytes.EqualFold(token, word) {
				return true
			}
		}
	}
	return false
}

// RefusesTracking reports whether a value of DNT or Sec-GPC says that the visitor asks
// not to be tracked.
func RefusesTracking(value []byte) bool { return string(bytes.TrimSpace(value)) == "1" }
