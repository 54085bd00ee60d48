package listen

import (
	"fmt"
	"syscall"
)

// OpenFiles returns how many files and connections this process may have open at once.
// When the process started, the Go runtime raised the soft limit to the hard one, if it
// was allowed to.
func OpenFiles() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit on open files: %w", err)
	}
	const plenty = 1 << 30                          // as good as no limit
	return int(min(uint64(limit.Cur), plenty)), nil //nolint:unconvert // its type differs between systems
}
