package api

import (
	"testing"

	"github.com/signpost/signpost/internal/pgtest"
)

func TestMain(m *testing.M) {
	slowIterations = 1000
	pgtest.Main(m)
}
