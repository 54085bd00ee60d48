//go:build !linux

package clicks

import (
	"os"
	"syscall"
)

// errCorrupted is what file systems say that find themselves damaged.
const errCorrupted = syscall.EIO

// fdatasync makes f durable.
func fdatasync(f *os.File) error { return f.Sync() }
