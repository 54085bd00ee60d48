package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLeftInSpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{
		"a/lock", "a/kept/a-1.seg", "a/gone/a-2.seg", "cache-0/links", "cache-0/lock",
		"a/a-3.seg", "a/a-4.open", "b/b-1.bad", "b/kept/b-2.open", "stray",
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	left, err := leftInSpool(dir)
	require.NoError(t, err)
	for i := range left {
		left[i], _ = filepath.Rel(dir, left[i])
	}
	want := []string{"a/a-3.seg", "a/a-4.open", "b/b-1.bad", "b/kept/b-2.open", "stray"}
	if !slices.Equal(left, want) {
		t.Errorf("left %v, want %v", left, want)
	}
}
