package clicks

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync makes the contents of f durable, and of its metadata what it takes
// to read them.
func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
