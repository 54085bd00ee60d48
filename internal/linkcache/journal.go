package linkcache

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxLog bounds the log of a snapshot. At half of it a new snapshot is made.
	maxLog = 16 << 20
	// maxLogWait is how long a change waits for the disk: a disk that hangs must not
	// delay the change of a link any longer.
	maxLogWait = 300 * time.Millisecond
)

var errSlow = errors.New("the disk does not answer")

// A journal keeps the snapshot file: it appends changes to the file's log and
// replaces the file by a new snapshot.
//
// When a change cannot be appended, the snapshot must not be used anymore, since the
// link could come back as it was before the change. So the file is removed, and the
// next snapshot starts a new one.
//
// BUG: a file that can be neither appended to nor removed (on a disk that hangs or
// became read-only) stays. A restart without Postgres then serves the old links in it.
//
// The log is not synced: it survives the process, and may lose its last seconds
// with the machine's power.
type journal struct {
	path string
	log  *slog.Logger
	due  chan struct{} // wakes the writer of snapshots early

	// broken says that a change was not appended. It is set without mu, because a write
	// that hangs holds mu.
	broken atomic.Bool

	mu      sync.Mutex
	file    *os.File // nil: there is no snapshot, so nothing can come back
	logSize int
	saving  bool   // a snapshot is being made
	pending []byte // appended since it was begun
}

// append writes frames to the end of the log.
func (j *journal) append(frames []byte) {
	if j.broken.Load() {
		return
	}
	var late atomic.Bool
	err := j.inTime(func() error { return j.write(frames, &late) })
	if err == nil {
		return
	}
	late.Store(true)
	j.broken.Store(true)
	j.log.Warn("cannot append link changes to the snapshot file; it is removed and made again", slog.Any("error", err))
	if err := j.inTime(j.discard); err != nil {
		j.log.Error("cannot remove the outdated link snapshot; remove it before the next start",
			slog.String("file", j.path), slog.Any("error", err))
	}
}

// inTime runs f, but does not wait for it longer than maxLogWait.
func (j *journal) inTime(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	timer := time.NewTimer(maxLogWait)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errSlow
	}
}

// write is append without the time limit. If append has given up, it does nothing:
// newer changes may have been written since.
func (j *journal) write(frames []byte, late *atomic.Bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if late.Load() || j.file == nil && !j.saving {
		return nil
	}
	j.logSize += len(frames)
	switch {
	case j.logSize > maxLog:
		return errors.New("the log is full")
	case j.logSize > maxLog/2:
		select {
		case j.due <- struct{}{}:
		default:
		}
	}
	if j.saving {
		j.pending = append(j.pending, frames...)
	}
	if j.file == nil {
		return nil
	}
	_, err := j.file.Write(frames)
	return err
}

// discard removes the file because a change is missing in it.
func (j *journal) discard() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.broken.Load() {
		return nil // a new snapshot took its place while the disk hung
	}
	return j.drop()
}

func (j *journal) drop() error {
	if j.file != nil {
		_ = j.file.Close() // nothing in it is wanted any more
		j.file = nil
	}
	if err := os.Remove(j.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// begin starts a snapshot: from now on the changes that are appended are also kept for
// the new file. The caller makes sure that no change has been logged but not yet
// applied to the cache.
func (j *journal) begin() error {
	if !j.mu.TryLock() {
		return errSlow
	}
	defer j.mu.Unlock()
	if j.broken.Load() {
		if err := j.drop(); err != nil {
			return err
		}
	}
	j.broken.Store(false)
	j.saving, j.pending = true, nil
	return nil
}

// replace writes a new snapshot with the changes since begin as its log, and replaces
// the file with it.
func (j *journal) replace(write func(io.Writer) error) error {
	next, err := os.OpenFile(j.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err == nil {
		// It is synced before the rename, so that the name never leads to half a file.
		err = errors.Join(write(next), next.Sync())
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	pending := j.pending
	j.saving, j.pending = false, nil
	if err == nil {
		err = j.put(next, pending)
	}
	if err != nil && next != nil {
		err = errors.Join(err, next.Close(), os.Remove(next.Name()))
	}
	return err
}

func (j *journal) put(next *os.File, pending []byte) error {
	if j.broken.Load() {
		return errors.New("a link change could not be logged while the snapshot was written")
	}
	if _, err := next.Write(pending); err != nil {
		return fmt.Errorf("write what changed meanwhile: %w", err)
	}
	if err := os.Rename(next.Name(), j.path); err != nil {
		return err
	}
	if j.file != nil {
		_ = j.file.Close() // it has no name any more
	}
	j.file, j.logSize = next, len(pending)
	return nil
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		_ = j.file.Close() // nothing is buffered
		j.file = nil
	}
}
