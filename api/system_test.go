package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/service"
)

func TestSystem(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) {
		o.About = service.About{Version: "1.2.3", Host: "api-1", StartedAt: time.Now(), Settings: []service.Setting{{Name: "ADMIN_TOKEN", Value: "(hidden)"}}}
	})
	b.exec("INSERT INTO workers (id, host, version, queues, seen_at) VALUES ('a', 'worker-1', '1.2.3', '{clicks=2}', now()), ('b', 'worker-2', '1.2.2', '{}', now() - interval '2 minutes')")
	b.exec("INSERT INTO replicas (id, host, folders, spooled, complete_to) VALUES ('r', 'api-7', '{}', 7, now())")
	b.exec("INSERT INTO click_batches (id, payload, clicks, oldest_at) VALUES ('waits', 'x', 3, now() - interval '1 hour')")
	b.exec("INSERT INTO river_queue (name, paused_at, updated_at) VALUES ('clicks', now(), now())")
	for _, state := range []string{"available", "retryable", "running", "scheduled"} {
		b.exec(`INSERT INTO river_job (kind, queue, state, args, max_attempts, scheduled_at)
			VALUES ('record_clicks', 'clicks', $1::river_job_state, '{}', 1, now() - interval '10 seconds')`, state)
	}
	a := b.want(200, RoleAdmin, "GET", "/admin/system", nil).body
	assert.Equal(t, "1.2.3", a["version"])
	assert.Equal(t, []any{map[string]any{"name": "ADMIN_TOKEN", "value": "(hidden)"}}, a["settings"])
	assert.Empty(t, a["unknown"])
	queues := a["queues"].([]any)
	require.Len(t, queues, 4)
	clicks := queues[0].(map[string]any)
	assert.GreaterOrEqual(t, clicks["oldest_seconds"], 10.0)
	delete(clicks, "oldest_seconds")
	assert.Equal(t, map[string]any{"name": "clicks", "waiting": 2.0, "running": 1.0, "scheduled": 1.0, "discarded": 0.0, "paused": true}, clicks)
	workers := a["workers"].([]any)
	require.Len(t, workers, 2)
	assert.Equal(t, "worker-1 false", fmt.Sprint(workers[0].(map[string]any)["host"], " ", workers[0].(map[string]any)["gone"]))
	assert.Equal(t, "worker-2 true", fmt.Sprint(workers[1].(map[string]any)["host"], " ", workers[1].(map[string]any)["gone"]))
	assert.Equal(t, 7.0, a["replicas"].([]any)[0].(map[string]any)["spooled"])
	assert.Equal(t, 10.0, a["statistics"].(map[string]any)["pending"])
	batches := a["batches"].(map[string]any)
	assert.Equal(t, 1.0, batches["waiting"])
	assert.Equal(t, 3.0, batches["clicks"])
	assert.Equal(t, "none", a["cache"].(map[string]any)["redis"])
	database := a["database"].(map[string]any)
	assert.Greater(t, database["bytes"], 1e6)
	names := map[any]bool{}
	for _, table := range database["tables"].([]any) {
		names[table.(map[string]any)["name"]] = true
	}
	assert.True(t, names["events"], names)
	assert.False(t, names[time.Now().UTC().Format("events_2006_01")], "a partition is part of its table")
	months := map[any]bool{}
	for _, month := range database["months"].([]any) {
		months[month.(map[string]any)["month"]] = true
	}
	assert.True(t, months[time.Now().UTC().Format("2006-01")], months)
}

// A part that cannot be read leaves the others as they are.
func TestSystemWithoutAPart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("DROP TABLE workers")
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE click_rejects")
	require.NoError(t, err)
	a := b.want(200, RoleAdmin, "GET", "/admin/system", nil).body
	assert.Equal(t, []any{
		map[string]any{"part": "batches", "reason": "the database did not answer in time"},
		map[string]any{"part": "workers", "reason": "it could not be read"},
		map[string]any{"part": "database", "reason": "the database did not answer in time"}, // it waits for the size of that table
	}, a["unknown"])
	assert.Nil(t, a["batches"])
	assert.Empty(t, a["workers"])
	assert.Len(t, a["queues"], 4)
	assert.NotNil(t, a["statistics"])
	require.NoError(t, tx.Rollback(t.Context()))
	b.want(200, RoleAdmin, "GET", "/admin/system", nil)
}

func TestFailedBatches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, id := range []string{"one", "two"} {
		b.exec("INSERT INTO click_batches (id, payload, clicks, oldest_at, failed_at, failure) VALUES ($1, 'x', 5, now(), now(), 'it is broken')", id)
	}
	failed := b.want(200, RoleAdmin, "GET", "/admin/system", nil).body["batches"].(map[string]any)
	assert.Equal(t, 2.0, failed["failed"])
	first := failed["failed_batches"].([]any)[0].(map[string]any)
	assert.Equal(t, "one it is broken 5", fmt.Sprint(first["id"], " ", first["reason"], " ", first["clicks"]))

	b.want(404, RoleAdmin, "POST", "/admin/batches/nothing/retry", nil)
	b.want(204, RoleAdmin, "POST", "/admin/batches/one/retry", nil)
	b.want(404, RoleAdmin, "POST", "/admin/batches/one/retry", nil)
	b.want(404, RoleAdmin, "DELETE", "/admin/batches/one", nil)
	b.wantCount(1, "SELECT count(*) FROM river_job j JOIN click_batches c ON c.job_id = j.id WHERE c.id = 'one' AND c.failed_at IS NULL AND j.kind = 'record_clicks'")
	b.want(204, RoleAdmin, "DELETE", "/admin/batches/two", nil)
	b.want(404, RoleAdmin, "DELETE", "/admin/batches/two", nil)
	b.wantCount(1, "SELECT count(*) FROM events WHERE event_type = 'deleted' AND details->>'batch' = 'two' AND details->>'clicks' = '5'")
	b.wantCount(1, "SELECT count(*) FROM click_batches WHERE id = 'two' AND payload IS NULL AND ingested_at IS NOT NULL")
	b.wantCount(2, "SELECT count(*) FROM events WHERE details->>'entity' = 'batch' AND details->'by'->>'name' = $1", b.want(200, RoleAdmin, "GET", "/events?event_type=deleted", nil).body["data"].([]any)[0].(map[string]any)["details"].(map[string]any)["by"].(map[string]any)["name"])
}

func TestLastUseOfTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("UPDATE api_tokens SET last_used_at = NULL")
	used := func() int64 {
		return b.count("SELECT count(*) FROM api_tokens WHERE last_used_at > now() - interval '10 seconds'")
	}
	b.want(200, RoleReader, "GET", "/users", nil)
	assert.Equal(t, int64(1), used())
	w := b.signedIn(RoleEditor)
	assert.Equal(t, int64(2), used())
	b.exec("UPDATE api_tokens SET last_used_at = now() - interval '2 hours'")
	b.exec("UPDATE sessions SET used_at = now() - interval '2 minutes'")
	require.Equal(t, 200, w.get("/app").status)
	assert.Equal(t, int64(1), used(), "a session uses its token")

	// While a token is held, its use is not noted, and its bearer does not wait.
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM api_tokens FOR SHARE")
	require.NoError(t, err)
	b.want(200, RoleReader, "GET", "/users", nil)
	require.NoError(t, tx.Rollback(t.Context()))
	assert.Equal(t, int64(1), used())
	for _, token := range b.want(200, RoleAdmin, "GET", "/tokens", nil).body["data"].([]any) {
		assert.NotNil(t, token.(map[string]any)["last_used_at"])
	}
}
