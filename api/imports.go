package api

import (
	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"
)

// Imports are not there yet.

func (*API) createImport(*fiber.Ctx) error      { return unavailable("imports are not there yet") }
func (*API) createUsersImport(*fiber.Ctx) error { return unavailable("imports are not there yet") }
func (*API) registerImports(huma.API)           {}
