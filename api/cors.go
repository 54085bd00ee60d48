package api

import (
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/cors"
)

// allowOrigins lets scripts of pages from other origins use the management API and read
// its specification (https://fetch.spec.whatwg.org/#http-cors-protocol). They
// authenticate with a token, as everyone does, so credentials are never allowed.
// Origins are spelled as browsers write them; a single * allows all.
func allowOrigins(origins []string) fiber.Handler {
	return cors.New(cors.Config{
		AllowOrigins: strings.Join(origins, ","),
		AllowMethods: "GET, HEAD, POST, PUT, PATCH, DELETE",
		// These are the headers that the API reads, and with * all others, because
		// libraries add some (X-Requested-With, Tracestate, Pragma). The * does not
		// cover Authorization, and old browsers do not know it.
		AllowHeaders: "Authorization, Content-Type, Content-Encoding, Content-Disposition, Idempotency-Key, " +
			"If-None-Match, Last-Event-ID, Traceparent, X-Request-ID, Cache-Control, *",
		ExposeHeaders: "Location, Retry-After, ETag, X-Request-ID, Content-Disposition, Content-Encoding, Allow, Accept-Encoding, WWW-Authenticate",
		MaxAge:        int((10 * time.Minute).Seconds()),
	})
}
