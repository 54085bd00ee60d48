package api

import "github.com/gofiber/fiber/v2"

// redirect is not there yet.
func (*API) redirect(*fiber.Ctx) error { return notFound("link") }
