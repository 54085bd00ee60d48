package rollup

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// Links that are found by their busy days are those that all days of all links tell, also
// where several have the same rank, and where most days of a link are quiet.
func TestBusiestLinks(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	q := queries.New(pool)
	const days, links = 10, 60
	first := time.Date(2025, 3, 28, 0, 0, 0, 0, time.UTC)
	require.NoError(t, EnsureMonths(t.Context(), pool, []time.Time{postgres.MonthOf(first), postgres.MonthOf(first.AddDate(0, 0, days))}))
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	told := 0
	for round := range 30 {
		pgtest.Exec(t, pool, "TRUNCATE rollups")
		var rows [][]any
		for link := range links {
			for day := range days {
				clicks := rnd.IntN(3) // of a day that is not busy
				if rnd.IntN(1+link/3) == 0 {
					clicks = rnd.IntN(10 + 400/(1+link))
				}
				people := rnd.IntN(clicks + 1)
				if clicks > 0 {
					rows = append(rows, []any{1 + link, first.AddDate(0, 0, day), clicks, people, rnd.IntN(people + 1), []byte{}})
				}
			}
		}
		_, err := pool.CopyFrom(t.Context(), pgx.Identifier{"rollups"}, []string{"scope", "day", "clicks", "people", "visitors", "cells"}, pgx.CopyFromRows(rows))
		require.NoError(t, err)
		k := Ranking{
			Range: oneBucket(first, first.AddDate(0, 0, days)), By: []RankBy{RankByClicks, RankByPeople, RankByVisitors}[rnd.IntN(3)],
			Limit: 1 + rnd.IntN(9), candidates: 1 + rnd.IntN(links),
		}
		if rnd.IntN(2) == 0 {
			k.Filter = Filter{Kind: {[]string{Person}, rnd.IntN(2) == 0}}
		}
		got, err := k.readBusiest(t.Context(), q)
		require.NoError(t, err)
		if got == nil {
			continue
		}
		told++
		want, err := k.read(t.Context(), q, k.Range, nil)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for i, row := range got {
			row.TotalClicks, row.TotalPeople, row.TotalVisitors = want[i].TotalClicks, want[i].TotalPeople, want[i].TotalVisitors
			assert.Equal(t, want[i], row, "seed %d, round %d, %+v", seed, round, k)
		}
	}
	assert.Positive(t, told)
	t.Log(told, "of 30 were told by busy days")
}

// The class that the database keeps of a row has the bounds that a ranking goes by.
func TestClassesOfBusyDays(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	day := time.Date(2025, 3, 28, 0, 0, 0, 0, time.UTC)
	require.NoError(t, EnsureMonths(t.Context(), pool, []time.Time{postgres.MonthOf(day)}))
	class := func(clicks int64) (class int) {
		pgtest.Exec(t, pool, "TRUNCATE rollups")
		pgtest.Exec(t, pool, "INSERT INTO rollups (scope, day, clicks, people, visitors, cells) VALUES (1, $1, $2, 0, 0, '')", day, clicks)
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT busy FROM rollups").Scan(&class))
		return class
	}
	for of := range lastClass {
		assert.Equal(t, of, class(mostOfClass(of)))
		assert.Equal(t, of+1, class(mostOfClass(of)+1))
	}
	assert.Equal(t, lastClass, class(1<<40))
}
