package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// fault is one way to hurt the system.
type fault struct {
	name  string
	lasts time.Duration
	hurt  func(context.Context) error
	heal  func(context.Context) error // nil: the engine heals by itself
	whole func(context.Context) bool  // whether all is as it was before

	interrupts bool // it ends an api that has requests in hand
	drops      bool // clicks may be dropped, if they are counted

	// The preparation of the fault, under a name of its own in the table.
	prepared       string
	prepare, after func(context.Context) error
}

// allFaults is the table of contents of the faults.
func allFaults(s *system, l *load, brief bool) []fault {
	lasts := 20 * time.Second
	if brief {
		lasts = 6 * time.Second
	}
	list := []fault{
		killFault(s, l, "api"),
		killFault(s, l, "worker"),
		killFault(s, l, "postgres"),
		killFault(s, l, "redis"),
		pauseFault(s, l, lasts),
		cutFault(s, l, "all api cut off from postgres", lasts, 0),
		fullDiskFault(s, l, lasts),
	}
	if !brief {
		list = append(list, cutFault(s, l, "one api cut off from postgres", lasts, 1), killFault(s, l, "api"))
	}
	return list
}

// killFault kills the main process of one container of a service.
func killFault(s *system, l *load, service string) fault {
	var victim killed
	return fault{
		name: "kill " + service, interrupts: service == "api",
		hurt: func(ctx context.Context) error {
			ids, err := s.containers(ctx, service)
			if err != nil {
				return err
			}
			victim, err = s.kill(ctx, ids[0])
			l.noteDeath()
			return err
		},
		whole: func(ctx context.Context) bool {
			if !s.restarted(ctx, victim) {
				return false
			}
			switch service {
			case "api", "worker":
				return s.ready(ctx, victim.id)
			case "redis":
				return do(ctx, "docker", "exec", victim.id, "redis-cli", "ping") == nil
			}
			return l.newLinks(ctx)
		},
	}
}

// pauseFault freezes Postgres: it accepts connections and never answers.
func pauseFault(s *system, l *load, lasts time.Duration) fault {
	return fault{
		name: "pause postgres", lasts: lasts,
		hurt:  func(ctx context.Context) error { return do(ctx, "docker", "compose", "pause", "postgres") },
		heal:  func(ctx context.Context) error { return do(ctx, "docker", "compose", "unpause", "postgres") },
		whole: l.newLinks,
	}
}

// cutFault cuts the first n api containers (0: all) off from Postgres.
func cutFault(s *system, l *load, name string, lasts time.Duration, n int) fault {
	var victims []string
	var address string
	all := func(ctx context.Context, change string) (err error) {
		for _, id := range victims {
			err = errors.Join(err, s.rules(ctx, change, id, address))
		}
		return err
	}
	return fault{
		name: name, lasts: lasts,
		hurt: func(ctx context.Context) error {
			database, err := s.containers(ctx, "postgres")
			if err != nil {
				return err
			}
			if address, err = s.ip(ctx, database[0], "back"); err != nil {
				return err
			}
			if victims, err = s.containers(ctx, "api"); err != nil {
				return err
			}
			if n > 0 {
				victims = victims[:n]
			}
			return all(ctx, cut)
		},
		heal: func(ctx context.Context) error { return all(ctx, mend) },
		whole: func(ctx context.Context) bool {
			for _, id := range victims {
				if !s.ready(ctx, id) {
					return false
				}
			}
			return l.newLinks(ctx)
		},
	}
}

// fullDiskFault fills the file system of the spool to the last byte.
func fullDiskFault(s *system, l *load, lasts time.Duration) fault {
	var filler string
	return fault{
		name: "fill the spool's disk", drops: true, lasts: lasts,
		prepared: "move the spool",
		// A file system of 16 MiB, which can be filled without harm to this machine.
		prepare: func(ctx context.Context) error {
			return do(ctx, "env", "COMPOSE_FILE=docker-compose.yml:deploy/chaos/small-spool.yml", "deploy/roll.sh", "api")
		},
		hurt: func(ctx context.Context) error {
			dir, err := s.spoolFolder(ctx)
			if err != nil {
				return err
			}
			filler = filepath.Join(dir, "filler")
			return fill(filler)
		},
		heal:  func(context.Context) error { return os.Remove(filler) },
		whole: l.keepsClicks,
		after: func(ctx context.Context) error {
			// A replica ships its spool before it ends: the file system in memory
			// ends with the last of them.
			return do(ctx, "deploy/roll.sh", "api")
		},
	}
}

// spoolFolder is where this machine sees the file system of the spool.
func (s *system) spoolFolder(ctx context.Context) (string, error) {
	ids, err := s.containers(ctx, "api")
	if err != nil {
		return "", err
	}
	mounts, err := output(ctx, "docker", "inspect", "-f", `{{range .Mounts}}{{.Name}} {{.Source}}{{println}}{{end}}`, ids[0])
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(mounts) {
		if name, source, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasSuffix(name, "_spool-small") {
			return source, nil
		}
	}
	return "", errors.New("the spool was not moved")
}

// fill makes a file that takes all the space that is left. It refuses to on a
// file system that is not a small one.
func fill(path string) (err error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &stat); err != nil {
		return err
	}
	if size := int64(stat.Blocks) * stat.Bsize; size > 64<<20 {
		return fmt.Errorf("%s has %d bytes: that is not the spool's own file system", filepath.Dir(path), size)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, step := range []int{1 << 20, 4096, 1} {
		for {
			if _, err := f.Write(make([]byte, step)); errors.Is(err, syscall.ENOSPC) || errors.Is(err, io.ErrShortWrite) {
				break
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}
