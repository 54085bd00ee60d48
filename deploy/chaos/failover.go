package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/signpost/signpost/internal/drive"
)

// failoverFault cuts a standby off from Postgres, so that it lags, kills Postgres
// for good and promotes the standby. It has to be the last: see shipAgain.
func failoverFault(s *system, l *load, lasts time.Duration) fault {
	var standby, primary string // a container, and an address
	return fault{
		name: "fail over to a standby that lags", lasts: lasts,
		prepared: "make a standby",
		prepare:  s.makeStandby,
		hurt: func(ctx context.Context) error {
			ids, err := s.containers(ctx, "postgres")
			if err != nil {
				return err
			}
			if primary, err = s.ip(ctx, ids[0], "back"); err != nil {
				return err
			}
			if ids, err = s.containers(ctx, "standby"); err != nil {
				return err
			}
			standby = ids[0]
			return s.cut(ctx, standby, primary)
		},
		heal: func(ctx context.Context) error {
			// "docker compose kill" counts as a manual stop: nobody starts it again.
			if err := do(ctx, "docker", "compose", "kill", "postgres"); err != nil {
				return err
			}
			s.database = "standby"
			if err := s.mend(ctx, standby, primary); err != nil {
				return err
			}
			return s.exec(ctx, "SELECT pg_promote()")
		},
		whole: l.newLinks,
	}
}

// makeStandby starts a standby and gives all processes an address that names both
// servers.
func (s *system) makeStandby(ctx context.Context) error {
	s.alone, s.standby = os.Getenv("COMPOSE_FILE"), true
	if err := os.Setenv("COMPOSE_FILE", cmp.Or(s.alone, "docker-compose.yml")+":deploy/chaos/standby.yml"); err != nil {
		return err
	}
	const allow = "host replication signpost all scram-sha-256"
	err := do(ctx, "docker", "compose", "exec", "-T", "postgres", "bash", "-c",
		fmt.Sprintf(`grep -qF %[1]q "$PGDATA/pg_hba.conf" || echo %[1]q >> "$PGDATA/pg_hba.conf"`, allow))
	if err != nil {
		return err
	}
	if err := s.exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	if err := do(ctx, "docker", "compose", "up", "-d", "--no-build", "--no-deps", "--wait", "standby"); err != nil {
		return err
	}
	return do(ctx, "deploy/roll.sh", "api", "worker")
}

// shipAgain counts the clicks that a failover has lost and has every api ship its
// kept segments again, as docs/operations.md says. Nothing follows links any more.
func (l *load) shipAgain(ctx context.Context) error {
	if l.sys.database != "standby" {
		return nil
	}
	lost := 0
	err := drive.With(ctx, l.sys, func(ctx context.Context, conn *pgx.Conn) error {
		tallies, _, err := l.clicks.Compare(ctx, conn)
		for i, p := range l.phases {
			if !p.drops { // a full disk lost those
				lost += tallies[i].Missing
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("chaos: after the failover %d answered clicks are not in the database\n", lost)
	if lost == 0 {
		return errors.New("the failover lost nothing: the standby did not lag, and nothing was shown")
	}
	ids, err := l.sys.containers(ctx, "api")
	if err != nil {
		return err
	}
	for _, id := range ids {
		said, err := output(ctx, "docker", "exec", id, "/usr/local/bin/signpost", "spool", "reship")
		if err != nil {
			return err
		}
		fmt.Printf("chaos: api %.12s: %s\n", id, said)
	}
	return drive.Settle(ctx, l.sys, l.s.patience)
}

// failBack removes the standby that makeStandby made. If it was promoted, Postgres
// becomes a copy of it first. Nothing follows links meanwhile.
func (s *system) failBack(ctx context.Context) error {
	if !s.standby {
		return nil
	}
	volume := s.project + "_standby"
	const replace = `set -e
cd "$PGDATA"
rm -rf .new
mkdir .new
cp -a /from/. .new/
find . -mindepth 1 -maxdepth 1 ! -name .new -exec rm -rf {} +
mv .new/* .
rmdir .new`
	steps := [][]string{{"compose", "rm", "-sf", "standby"}, {"volume", "rm", volume}}
	if s.database == "standby" {
		steps = append([][]string{
			{"compose", "stop", "api", "worker", "standby"},
			{"compose", "run", "--rm", "--no-deps", "-T", "--entrypoint", "bash", "-v", volume + ":/from:ro", "postgres", "-c", replace},
		}, steps...)
	}
	for _, args := range steps {
		if err := do(ctx, "docker", args...); err != nil {
			return err
		}
	}
	if err := os.Setenv("COMPOSE_FILE", cmp.Or(s.alone, "docker-compose.yml")); err != nil {
		return err
	}
	s.database = "postgres"
	return do(ctx, "docker", "compose", "up", "-d", "--no-build", "--wait")
}
