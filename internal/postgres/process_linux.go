package postgres

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func setDeathSignal(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// isPostmaster reports whether process pid lives and is a Postgres server on
// data: servers have their data folder as working folder. The number alone says
// nothing, since it may have been given to another process.
func isPostmaster(pid int, data string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	if err != nil {
		return false // gone, or a zombie
	}
	program, err := os.ReadFile(filepath.Join(proc, "comm"))
	return err == nil && cwd == realPath(data) && strings.HasPrefix(string(program), "postgres")
}

func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}
