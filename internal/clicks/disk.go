package clicks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/signpost/signpost/internal/files"
)

// disk holds all file system calls of the spool, so that tests can replace single ones
// to fill a disk, break it or hang it. The only calls that bypass it are those that
// need an open descriptor and move no data: Stat, Close and the lock.
type disk struct {
	// create makes a file and opens it; one that is there is an error.
	create func(path string) (*os.File, error)
	// open opens a file to read.
	open func(path string) (*os.File, error)
	// openLock opens a file to write, and makes it if it is not there.
	openLock func(path string) (*os.File, error)
	writeAt  func(f *os.File, b []byte, off int64) (int, error)
	readAt   func(f *os.File, b []byte, off int64) (int, error)
	sync     func(f *os.File) error
	// cut shortens a file that is open.
	cut func(f *os.File, size int64) error
	// stat describes the file that has a name, without following links.
	stat func(path string) (fs.FileInfo, error)
	// pathOf returns the current path of an open file.
	pathOf func(f *os.File) (string, error)
	// readDir calls visit for every entry of a directory, in no order. A
	// directory that does not exist is empty.
	readDir func(path string, visit func(fs.DirEntry)) error
	mkdir   func(path string) error
	// mkdirAll makes a directory with its missing parents, all of them durable.
	mkdirAll func(path string) error
	syncDir  func(path string) error
	rename   func(from, to string) error
	remove   func(path string) error
	// truncate makes a file empty, which gives its space back.
	truncate func(path string) error
	setTime  func(path string, at time.Time) error
}

func realDisk() disk {
	return disk{
		create: func(path string) (*os.File, error) {
			// O_EXCL: a name that exists would mean an id used twice.
			return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		},
		open: os.Open,
		openLock: func(path string) (*os.File, error) {
			return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		},
		writeAt:  func(f *os.File, b []byte, off int64) (int, error) { return f.WriteAt(b, off) },
		readAt:   func(f *os.File, b []byte, off int64) (int, error) { return f.ReadAt(b, off) },
		sync:     fdatasync,
		cut:      func(f *os.File, size int64) error { return f.Truncate(size) },
		stat:     os.Lstat,
		pathOf:   func(f *os.File) (string, error) { return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())) },
		readDir:  eachFile,
		mkdir:    func(path string) error { return os.Mkdir(path, 0o700) },
		mkdirAll: files.MkdirAll,
		syncDir:  files.SyncDir,
		rename:   os.Rename,
		remove:   os.Remove,
		truncate: func(path string) error { return os.Truncate(path, 0) },
		setTime:  func(path string, at time.Time) error { return os.Chtimes(path, at, at) },
	}
}

// exists reports whether there is a file with this path.
func (d disk) exists(path string) bool {
	_, err := d.stat(path)
	return err == nil
}

// size returns the bytes of a file, 0 for none.
func (d disk) size(path string) int64 {
	info, err := d.stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// eachFile visits a directory without holding more than a few entries in
// memory.
func eachFile(path string, visit func(fs.DirEntry)) error {
	d, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		entries, err := d.ReadDir(512)
		for _, e := range entries {
			visit(e)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, d.Close())
		}
	}
}
