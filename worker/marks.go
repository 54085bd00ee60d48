package worker

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/queries"
)

// marksAge is how long a worker goes by the marks that it read.
const marksAge = 5 * time.Second

// judge holds the marks of operators, and the agents that were read under them. It is
// safe for concurrent use.
type judge struct {
	mu     sync.Mutex
	readAt time.Time
	rows   []queries.Mark
	marks  *visits.Marks
	agents *agents
}

// newJudge returns a judge that has read no marks yet.
func newJudge() (*judge, error) {
	j := &judge{marks: &visits.Marks{}}
	var err error
	j.agents, err = newAgents(j.marks.ReadAgent)
	return j, err
}

// current returns the marks of at most marksAge ago, and the agents under them.
func (j *judge) current(ctx context.Context, q *queries.Queries, now time.Time) (*visits.Marks, *agents, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if now.Sub(j.readAt) < marksAge {
		return j.marks, j.agents, nil
	}
	rows, err := readMarks(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	if !sameMarks(rows, j.rows) {
		marks := marksOf(rows)
		if j.agents, err = newAgents(marks.ReadAgent); err != nil {
			return nil, nil, err
		}
		j.rows, j.marks = rows, marks
	}
	j.readAt = now
	return j.marks, j.agents, nil
}

func readMarks(ctx context.Context, q *queries.Queries) ([]queries.Mark, error) {
	rows, err := q.ListMarks(ctx, 0, 0, math.MaxInt32)
	if err != nil {
		return nil, fmt.Errorf("read marks: %w", err)
	}
	return rows, nil
}

// sameMarks compares marks by their ids: a mark never changes.
func sameMarks(a, b []queries.Mark) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID {
			return false
		}
	}
	return true
}

func marksOf(rows []queries.Mark) *visits.Marks {
	marks := make([]visits.Mark, len(rows))
	for i, row := range rows {
		marks[i] = visits.Mark{Pattern: or(row.UserAgent, ""), Kind: visits.Kind(row.Kind)}
		if row.Network != nil {
			marks[i].Network = *row.Network
		}
	}
	return visits.NewMarks(marks)
}
