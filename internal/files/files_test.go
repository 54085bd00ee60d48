package files

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := OpenLocked(path)
	require.NoError(t, err)
	if _, err := OpenLocked(path); !errors.Is(err, ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	require.NoError(t, Unlock(first))
	second, err := OpenLocked(path)
	require.NoError(t, err)
	assert.NoError(t, errors.Join(Unlock(second), MkdirAll(path+"-dir/below/below"), MkdirAll(path+"-dir")))
	if _, err := OpenLocked(filepath.Join(path, "below")); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("below a file: %v", err)
	}
	if SyncDir(path+"-none") == nil || MkdirAll(path+"/below") == nil {
		t.Error("a directory that is not there was synced, or one made below a file")
	}
}
