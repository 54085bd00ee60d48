package clicks

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is what the spool asks of the file system while it runs. Tests replace
// single functions to fill, break and hang it.
type disk struct {
	create  func(path string) (*os.File, error)
	writeAt func(f *os.File, b []byte, off int64) (int, error)
	sync    func(f *os.File) error
	readAt  func(f *os.File, b []byte, off int64) (int, error)
	readDir func(path string, visit func(fs.DirEntry)) error
	rename  func(from, to string) error
	// truncate makes a file empty, which gives its space back.
	truncate func(path string) error
}

func realDisk() disk {
	return disk{
		create: func(path string) (*os.File, error) {
			// O_EXCL: a name that exists would mean an id used twice.
			return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		},
		writeAt:  func(f *os.File, b []byte, off int64) (int, error) { return f.WriteAt(b, off) },
		sync:     fdatasync,
		readAt:   func(f *os.File, b []byte, off int64) (int, error) { return f.ReadAt(b, off) },
		readDir:  eachFile,
		rename:   os.Rename,
		truncate: func(path string) error { return os.Truncate(path, 0) },
	}
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// mkdirDurable creates dir and its missing parents, and makes each durable by
// syncing the directory that names it.
func mkdirDurable(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := mkdirDurable(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}
