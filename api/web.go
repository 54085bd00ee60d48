package api

import (
	_ "embed" // of the icons
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/links"
)

// robotsText lets crawlers follow short links and forbids everything else: a service
// that shows previews of shared links has to reach their targets, and many such
// services obey it. A rule is the beginning of a path. So three rules are needed to
// forbid users and the paths below it, but not the code usersguide.
var robotsText = func() string {
	var text strings.Builder
	text.WriteString("User-agent: *\n")
	routed, planned := links.ReservedWords()
	for _, word := range append(routed, planned...) {
		if !slices.Contains(forCrawlers, word) {
			for _, end := range []string{"$", "/", "?"} {
				text.WriteString("Disallow: /" + word + end + "\n")
			}
		}
	}
	return text.String()
}()

// forCrawlers are the reserved words that crawlers may read: short links, and files
// that are made for programs.
var forCrawlers = []string{"r", "robots.txt", "favicon.ico", "apple-touch-icon.png", ".well-known"}

func (*API) robots(c *fiber.Ctx) error {
	c.Type("txt", "utf-8")
	return c.SendString(robotsText)
}

// The icon is a white signpost on blue: in three sizes for tabs, and without round
// corners for home screens, which cut their own.
var (
	//go:embed icons/favicon.ico
	faviconBytes []byte
	//go:embed icons/apple-touch-icon.png
	touchIconBytes []byte

	faviconFile   = newSharedFile("image/x-icon", faviconBytes, nil)
	touchIconFile = newSharedFile("image/png", touchIconBytes, nil)
)

// favicon serves the icon that every browser asks for.
func (*API) favicon(c *fiber.Ctx) error {
	faviconFile.send(c)
	return nil
}

// touchIcon serves the icon that phones ask for, under names with sizes. They scale it.
func (*API) touchIcon(c *fiber.Ctx) error {
	touchIconFile.send(c)
	return nil
}

// securityValid is how long the contact is valid from the day on which it was read; RFC
// 9116 recommends less than a year.
const securityValid = 180 * 24 * time.Hour

// security names the contact for reports of weaknesses (RFC 9116), if there is one.
func (a *API) security(c *fiber.Ctx) error {
	if a.SecurityContact == "" {
		return plainError(http.StatusNotFound)
	}
	expires := time.Now().UTC().Truncate(24 * time.Hour).Add(securityValid)
	c.Set(fiber.HeaderCacheControl, "public, max-age=3600")
	c.Type("txt", "utf-8")
	return c.SendString("Contact: " + a.SecurityContact + "\nExpires: " + expires.Format(time.RFC3339) + "\n")
}
