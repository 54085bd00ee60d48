package pgserver_test

import (
	"testing"

	"github.com/signpost/signpost/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
