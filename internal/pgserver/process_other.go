//go:build !linux

package pgserver

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// setDeathSignal does nothing here: a server whose parent was killed runs on
// until the next start on its folder stops it.
func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

// isPostmaster reports whether process pid lives and is a Postgres server on
// data: our servers name their data folder on the command line. The number
// alone says nothing, since it may have been given to another process.
func isPostmaster(pid int, data string) bool {
	out, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "postgres") && strings.Contains(string(out), data)
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) []int {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil // pgrep fails when it finds none
	}
	var children []int
	for _, field := range strings.Fields(string(out)) {
		if child, err := strconv.Atoi(field); err == nil {
			children = append(children, child)
		}
	}
	return children
}

// removeSharedMemory does nothing here.
func removeSharedMemory(string) {}
