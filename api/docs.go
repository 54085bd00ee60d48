package api

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/gofiber/fiber/v2"
	swaggerui "github.com/swaggest/swgui/v5/static"
)

const docsPage = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Signpost API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
`

// docsScript starts the page. The validator it switches off is an outside host.
const docsScript = `SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#docs',
  deepLinking: true,
  validatorUrl: null,
  tryItOutEnabled: true,
  persistAuthorization: false
});
`

// docsPolicy lets the page reach this host alone. Swagger UI sets styles on
// its elements and has its icons inline.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// docsFiles are the files of the bundled Swagger UI that the page uses, and
// their types. The texts are compressed.
var docsFiles = map[string]struct{ kind, bundled string }{
	"swagger-ui-bundle.js": {"text/javascript; charset=utf-8", "swagger-ui-bundle.js.gz"},
	"swagger-ui.css":       {"text/css; charset=utf-8", "swagger-ui.css.gz"},
	"favicon-32x32.png":    {"image/png", "favicon-32x32.png"},
}

// docs shows /openapi.json to people.
func (*API) docs(c *fiber.Ctx) error {
	c.Set(fiber.HeaderContentSecurityPolicy, docsPolicy)
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Type("html", "utf-8")
	return c.SendString(docsPage)
}

// docsFile serves what the page consists of.
func (*API) docsFile(c *fiber.Ctx) error {
	name := c.Params("file")
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	if name == "start.js" {
		c.Type("js", "utf-8")
		return c.SendString(docsScript)
	}
	entry, ok := docsFiles[name]
	if !ok {
		return fiber.ErrNotFound
	}
	file, err := swaggerui.FS.Open(entry.bundled)
	if errors.Is(err, fs.ErrNotExist) {
		return fiber.ErrNotFound
	}
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderCacheControl, "public, max-age=3600")
	c.Set(fiber.HeaderContentType, entry.kind)
	if !strings.HasSuffix(entry.bundled, ".gz") {
		return c.SendStream(file) // closed when it was sent
	}
	c.Vary(fiber.HeaderAcceptEncoding)
	if c.AcceptsEncodings("gzip") != "" && c.Get(fiber.HeaderAcceptEncoding) != "" {
		c.Set(fiber.HeaderContentEncoding, "gzip")
		return c.SendStream(file)
	}
	text, err := gzip.NewReader(file)
	if err != nil {
		return fmt.Errorf("read %s: %w", entry.bundled, err)
	}
	return c.SendStream(text)
}
