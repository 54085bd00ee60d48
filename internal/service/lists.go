package service

import "github.com/signpost/signpost/queries"

// lists returns the queries that read lists.
func (s *Service) lists() *queries.Queries { return queries.New(queries.Planned{DBTX: s.Pool}) }

// Page says which rows of a list are wanted: those after a position, which are ids or
// lines and usually 0 at first, without the first Offset ones, and Limit of them.
type Page struct {
	After         int64
	Offset, Limit int32
}

// views returns rows in the form that users see.
func views[R, T any](rows []R, view func(R) T) []T {
	out := make([]T, len(rows))
	for i, row := range rows {
		out[i] = view(row)
	}
	return out
}
