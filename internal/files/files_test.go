package files

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := OpenLocked(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLocked(path); !errors.Is(err, ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	if err := Unlock(first); err != nil {
		t.Fatal(err)
	}
	second, err := OpenLocked(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Unlock(second), MkdirAll(path+"-dir/below/below"), MkdirAll(path+"-dir")); err != nil {
		t.Error(err)
	}
	if _, err := OpenLocked(filepath.Join(path, "below")); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("below a file: %v", err)
	}
	if SyncDir(path+"-none") == nil || MkdirAll(path+"/below") == nil {
		t.Error("a directory that is not there was synced, or one made below a file")
	}
}
