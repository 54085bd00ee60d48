package api

import "github.com/gofiber/fiber/v2"

const homePage = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Signpost</title>
<style>
body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1.5rem; color: #222; background: #fff }
a { color: #0b57d0 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } a { color: #8ab4f8 } }
</style>
</head>
<body>
<h1>Signpost</h1>
<p>This is a URL shortener. Its short links lead elsewhere, and every click is counted once.</p>
<p><a href="/docs">API documentation</a> · <a href="/openapi.json">OpenAPI</a></p>
</body>
</html>
`

// pagePolicy lets a page use its own inline styles, and the icon of this host,
// which browsers fetch by themselves.
const pagePolicy = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// home shows visitors of the bare host what this service is.
func (*API) home(c *fiber.Ctx) error {
	c.Set(fiber.HeaderContentSecurityPolicy, pagePolicy)
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Type("html", "utf-8")
	return c.SendString(homePage)
}
