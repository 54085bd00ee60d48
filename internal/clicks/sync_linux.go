package clicks

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync makes the contents of f durable, with the metadata that is needed to read
// them.
func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
