package postgres_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

func TestPoolMetrics(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	pool := pgtest.Open(t, cluster.URL("postgres"))
	registry := prometheus.NewPedanticRegistry()
	postgres.RegisterPool(registry, "test", pool)
	registry.MustRegister(postgres.NewUpMetric(pool))
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	for name, want := range map[string]float64{
		"signpost_postgres_up": 1, "signpost_postgres_pool_connections test in_use": 1, "signpost_postgres_pool_max_connections test": 10,
	} {
		if got := figures(t, registry)[name]; got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	got := figures(t, registry)
	if got["signpost_postgres_pool_acquires_total test"] < 1 || got["signpost_postgres_pool_connects_total test"] < 1 {
		t.Errorf("taking a connection was not counted: %v", got)
	}
	cluster.Kill()
	if up, told := figures(t, registry)["signpost_postgres_up"]; up != 0 || !told {
		t.Errorf("signpost_postgres_up = %v without a server", up)
	}
}

// figures returns the values of a registry by name and label value.
func figures(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			all[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}
