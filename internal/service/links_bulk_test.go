package service

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The undo of links with many different tags would be larger than all else.
func TestUndoIsBounded(t *testing.T) {
	t.Parallel()
	out, groups := BulkOutcome{}, &undoGroups{places: map[string]int{}}
	change := func(n int) {
		tags := []string{fmt.Sprint(n, strings.Repeat("t", 150))}
		out.undoBy(Link{ID: int64(n), Tags: tags}, Link{ID: int64(n)}, groups)
	}
	for n := range 1000 {
		change(n)
		change(n)
	}
	assert.Len(t, out.Undo, 1000)
	assert.Equal(t, []int64{7, 7}, out.Undo[7].IDs)
	assert.False(t, out.NoUndo)
	for n := range 10_000 {
		change(n)
	}
	assert.Empty(t, out.Undo)
	assert.True(t, out.NoUndo)
}
