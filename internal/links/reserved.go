package links

// Reserved reports whether word, in any case, is or may become the first
// segment of one of this service's own routes, so that no link can shadow it.
// It does not allocate.
func Reserved(word string) bool {
	var buf [longestReserved]byte
	if len(word) > len(buf) {
		return false
	}
	for i := range len(word) {
		buf[i] = lower(word[i])
	}
	return reserved[string(buf[:len(word)])]
}

const longestReserved = 16

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// reserved holds every first path segment in use or planned, and the words
// that a visitor would take for a page of the service.
var reserved = words(
	// Resources and the redirect.
	"r", "users", "urls", "events", "tokens", "imports", "exports", "links",
	"domains", "tags", "webhooks", "bulk", "teams", "workspaces",
	// Health and operations.
	"health", "healthz", "ready", "readyz", "live", "livez", "status", "ping",
	"version", "metrics", "jobs", "debug", "pprof", "riverui",
	// The contract and its pages.
	"docs", "doc", "openapi", "openapi.json", "openapi.yaml", "schemas",
	"swagger", "redoc", "help", "about", "terms", "privacy", "abuse", "report",
	// The application.
	"app", "admin", "api", "v1", "v2", "stats", "analytics", "dashboard",
	"search", "account", "settings", "profile", "login", "logout", "signin",
	"signout", "signup", "register", "password", "auth", "oauth", "oauth2",
	"sso", "saml", "callback", "session", "sessions", "qr", "preview", "new",
	"edit", "create", "delete", "sse", "ws",
	// Files and conventions of the web.
	"static", "assets", "public", "images", "img", "css", "js", "fonts",
	"well-known", ".well-known", "robots", "robots.txt", "favicon",
	"favicon.ico", "sitemap", "sitemap.xml", "manifest.json", "sw.js",
	"index", "index.html", "cgi-bin",
)

func words(list ...string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, word := range list {
		if len(word) > longestReserved {
			panic("links: raise longestReserved for " + word)
		}
		set[word] = true
	}
	return set
}
