package clicks

import (
	"errors"
	"syscall"
)

// Reasons for which a click is dropped. They are the values of the label "reason" and
// of DropError.Reason.
const (
	DropSpoolFull  = "spool_full" // unshipped clicks fill Options.MaxBytes
	DropDiskFull   = "disk_full"  // the file system has no room
	DropUnwritable = "unwritable" // read-only, no permission, or not there
	DropStuck      = "stuck"      // the disk does not answer, and there is no room to wait for it
	DropIOError    = "io_error"   // any other error of the disk
	DropClosed     = "closed"     // the spool is closed
)

// DropReasons lists every reason.
func DropReasons() []string {
	return []string{DropSpoolFull, DropDiskFull, DropUnwritable, DropStuck, DropIOError, DropClosed}
}

// DropError says that a click was not kept, and why. The redirect has to be answered
// all the same.
type DropError struct {
	Reason string // one of DropReasons
	number int    // its place in DropReasons
}

func (e *DropError) Error() string { return "click dropped: " + e.Reason }

// There is one value for each reason, so that dropping a click allocates nothing when
// the disk is in trouble and every click is dropped.
var (
	errSpoolFull  = &DropError{DropSpoolFull, 0}
	errDiskFull   = &DropError{DropDiskFull, 1}
	errUnwritable = &DropError{DropUnwritable, 2}
	errStuck      = &DropError{DropStuck, 3}
	errIOError    = &DropError{DropIOError, 4}
	errClosed     = &DropError{DropClosed, 5}
)

// dropFor classifies an error of the file system.
func dropFor(err error) *DropError {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, full) {
			return errDiskFull
		}
	}
	for _, denied := range []error{syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.ENOENT, syscall.ENOTDIR, syscall.ESTALE} {
		if errors.Is(err, denied) {
			return errUnwritable
		}
	}
	return errIOError
}
