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

// robotsText lets crawlers follow short links and keeps them off all else: who
// shows a preview of a shared link must reach its target, and many obey. A rule is
// the beginning of a path; so three are needed to forbid users, with what may
// follow it, and not the code usersguide.
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

// forCrawlers are the routed words that crawlers may read: short links, and files
// that are made for programs like them.
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

// favicon answers what every browser asks for.
func (*API) favicon(c *fiber.Ctx) error {
	faviconFile.send(c)
	return nil
}

// touchIcon answers what phones ask for, under names with sizes. They scale it.
func (*API) touchIcon(c *fiber.Ctx) error {
	touchIconFile.send(c)
	return nil
}

// securityValid is for how long the contact may be relied on, from the day on that
// it was read; RFC 9116 recommends less than a year.
const securityValid = 180 * 24 * time.Hour

// security says where to report a weakness (RFC 9116), if there is a contact.
func (a *API) security(c *fiber.Ctx) error {
	if a.SecurityContact == "" {
		return plainError(http.StatusNotFound)
	}
	expires := time.Now().UTC().Truncate(24 * time.Hour).Add(securityValid)
	c.Set(fiber.HeaderCacheControl, "public, max-age=3600")
	c.Type("txt", "utf-8")
	return c.SendString("Contact: " + a.SecurityContact + "\nExpires: " + expires.Format(time.RFC3339) + "\n")
}
