// Baseline is what redirects are measured against: a Fiber handler that answers
// a constant 302, with the server settings that Signpost uses.
//
//	LISTEN_ADDR=127.0.0.1:8080 go run ./bench/baseline
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/gofiber/fiber/v2"
)

func main() {
	app := fiber.New(fiber.Config{
		CaseSensitive: true, StrictRouting: true, DisableStartupMessage: true, ReadBufferSize: 16 << 10,
		ReadTimeout: time.Minute, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	})
	app.Get("/r/:code", func(c *fiber.Ctx) error {
		c.Set(fiber.HeaderLocation, "https://example.org/a/page/somewhere")
		c.Set(fiber.HeaderCacheControl, "private, no-store")
		return c.SendStatus(fiber.StatusFound)
	})
	if err := app.Listen(os.Getenv("LISTEN_ADDR")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
