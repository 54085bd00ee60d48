// Monitoring-check holds that the shipped monitoring shows a running Signpost. It runs in
// the folder of the repository.
//
// It checks the files by themselves (promtool, amtool, a runbook section and
// tests for every alert), starts two api and a worker with a Postgres and a Redis behind
// the load balancer, puts traffic on them, lets a real Prometheus scrape all with the
// shipped configuration, and asks it every query of every dashboard panel and rule. A
// query that returns nothing fails the check. Of an alert, which returns nothing while all is well, every
// selector has to return series instead.
//
// One folder is exempt from being asked, and from nothing else: the alerts in
// deploy/prometheus/kubernetes are on what only a kubelet tells.
//
// It is a module of its own, so that Prometheus' parser is no dependency of
// Signpost.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/redistest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "monitoring-check:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	start := time.Now()
	// Where tools/setup.sh unpacks what is not installed.
	unpacked, err := filepath.Abs("bin/monitoring/usr")
	if err != nil {
		return err
	}
	if err := os.Setenv("PATH", os.Getenv("PATH")+":"+unpacked+"/bin:"+unpacked+"/sbin"); err != nil {
		return err
	}
	files, err := readFiles()
	if err != nil {
		return err
	}
	queries, err := files.queries()
	if err := errors.Join(err, files.check(), runTools(ctx)); err != nil {
		return err
	}
	stage, err := drive.NewStage(ctx, "monitoring", "")
	if err != nil {
		return err
	}
	redis, err := redistest.Run()
	if err != nil {
		return errors.Join(err, stage.Remove(ctx, false))
	}
	s, err := startSystem(ctx, files, stage, redis)
	defer func() { err = errors.Join(err, s.stop(err != nil)) }()
	if err != nil {
		return err
	}
	if err := s.ask(ctx, queries, 2*time.Minute); err != nil {
		return err
	}
	fmt.Printf("monitoring: %d dashboards, %d recording rules, %d alerts: all %d queries return something (%.0f s)\n",
		len(files.boards), len(files.records), len(files.alerts), len(queries), time.Since(start).Seconds())
	return nil
}

// runTools lets Prometheus' and Alertmanager's own programs check the files.
func runTools(ctx context.Context) error {
	var errs []error
	for _, command := range [][]string{
		append([]string{"promtool", "check", "config"}, glob("prometheus/prometheus.yml")...),
		append([]string{"promtool", "check", "rules", "--lint=all", "--lint-fatal"}, append(glob("prometheus/rules/*.yml"), glob("prometheus/kubernetes/*.yml")...)...),
		append([]string{"promtool", "test", "rules"}, glob("prometheus/tests/*.yml")...),
		append([]string{"amtool", "check-config"}, glob("alertmanager/alertmanager.yml")...),
	} {
		text, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w\n%s", command, err, text))
		}
	}
	return errors.Join(errs...)
}
