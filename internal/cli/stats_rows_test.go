package cli

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/rollup"
)

// A row that is wrong is found by "stats verify" and mended by "stats rebuild".
func TestStatsVerifyAndRebuild(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool := pgtest.Open(t, url)
	for range 3 {
		pgtest.Exec(t, pool, "INSERT INTO events (occurred_at, url_id, user_id, event_type, bot) VALUES (now(), 7, 1, 'clicked', false)")
	}
	environ := environment(url, "")
	runs(t, environ, 1, "scope 7", "stats", "verify")
	runs(t, environ, 0, "2 rows", "stats", "rebuild", "--from", "2020-01-01")
	require.NoError(t, rollup.Fold(t.Context(), pool))
	runs(t, environ, 0, "3 clicks, 3 in the events; 0 rows differ", "stats", "verify", "--from", "2020-01-01", "--to", "2099-01-01")
	runs(t, environ, 1, "must be a day", "stats", "verify", "--from", "March")
	runs(t, environ, 1, "must be after --from", "stats", "rebuild", "--from", "2025-03-02", "--to", "2025-03-02")
}
