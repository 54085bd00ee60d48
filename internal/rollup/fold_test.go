package rollup

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// The server ends the session of a process that merges and is silent, but not one that
// has merged.
func TestSilentSessionLosesTheLock(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	var during, after string
	const limits = "SELECT current_setting('idle_session_timeout') || ' ' || current_setting('idle_in_transaction_session_timeout')"
	require.NoError(t, locked(t.Context(), pool, func(conn *pgxpool.Conn) error {
		return conn.QueryRow(t.Context(), limits).Scan(&during)
	}))
	require.NoError(t, pool.QueryRow(t.Context(), limits).Scan(&after))
	assert.Equal(t, "1min 1min", during)
	assert.Equal(t, "0 0", after)

	err := locked(t.Context(), pool, func(conn *pgxpool.Conn) error {
		_, err := conn.Exec(t.Context(), "SET idle_session_timeout = '1ms'")
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			return locked(t.Context(), pool, func(*pgxpool.Conn) error { return nil }) == nil
		}, 30*time.Second, 10*time.Millisecond, "another process takes over")
		return conn.Ping(t.Context())
	})
	assert.Error(t, err)
	require.NoError(t, pool.Ping(t.Context()))
}
