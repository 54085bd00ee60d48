package links

import "strings"

// Reserved reports whether the first segment of code is the first segment of a route of
// this service, present or planned. A link with such a code can only be reached under
// /r/. Case matters, as it does to the router. Reserved does not allocate.
func Reserved(code string) bool {
	first, _, _ := strings.Cut(code, "/")
	return reserved[first] || isTouchIcon(first)
}

// isTouchIcon reports whether a segment is one of the names under which phones ask for
// an icon, of any size, precomposed or not.
func isTouchIcon(segment string) bool {
	return strings.HasPrefix(segment, "apple-touch-icon") && strings.HasSuffix(segment, ".png")
}

// ReservedWords returns the reserved segments, those that have a route and those for
// which one is planned.
func ReservedWords() (routed, planned []string) {
	routed = []string{
		"r", "users", "urls", "domains", "events", "stats", "live", "tokens", "imports", "marks", "tags", "admin",
		"app", "health", "ready", "docs", "openapi.json", "robots.txt",
		"favicon.ico", "apple-touch-icon.png", ".well-known",
	}
	planned = []string{"api"}
	return routed, planned
}

var reserved = func() map[string]bool {
	set := map[string]bool{}
	routed, planned := ReservedWords()
	for _, word := range append(routed, planned...) {
		set[word] = true
	}
	return set
}()
