// Monitoring-check holds that the shipped monitoring shows a running Signpost:
//
//	monitoring-check [-root .] [-bin bin]
//
// It checks the files by themselves (promtool, amtool, a runbook section and
// tests for every alert), starts two api and a worker on the database that
// DATABASE_URL names, with a Redis and behind the load balancer, puts traffic on
// them, lets a real Prometheus scrape all with the shipped configuration, and asks
// it every query of every dashboard panel and rule. A query that returns nothing
// fails the check. Of an alert, which returns nothing while all is well, every
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
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// patience is how long every query may take to return something.
const patience = 2 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	root := flag.String("root", ".", "folder of the repository")
	bin := flag.String("bin", "bin", "folder of signpost, and of monitoring/usr/bin where promtool and the like are not on PATH")
	flag.Parse()
	err := run(ctx, *root, *bin, os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "monitoring-check:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, bin string, out io.Writer) error {
	start := time.Now()
	files, err := readFiles(filepath.Join(root, "deploy"), filepath.Join(root, "docs", "runbooks.md"))
	if err != nil {
		return err
	}
	if err := errors.Join(files.check(), runTools(ctx, root, bin, out)); err != nil {
		return err
	}
	queries, err := files.queries()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "signpost-monitoring-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	s, err := startSystem(ctx, files, dir, root, bin)
	defer func() {
		s.stop()
		_ = os.RemoveAll(dir)
	}()
	if err != nil {
		return err
	}
	if err := s.ask(ctx, queries, patience); err != nil {
		return fmt.Errorf("%w\n%s", err, s.logs())
	}
	_, _ = fmt.Fprintf(out, "monitoring: %d panels with %d queries, %d recording rules, %d alerts with %d selectors: all return something (%.0f s)\n",
		files.panels(), queries.count(fromPanel), len(files.records), len(files.alerts), queries.count(fromAlert), time.Since(start).Seconds())
	return nil
}

// tool returns where a program is: on PATH, or where tools/setup.sh unpacks it.
func tool(bin, name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	unpacked := filepath.Join(bin, "monitoring", "usr", "bin", name)
	if _, err := os.Stat(unpacked); err != nil {
		return filepath.Join(bin, "monitoring", "usr", "sbin", name)
	}
	return unpacked
}

// runTools lets Prometheus' and Alertmanager's own programs check the files.
func runTools(ctx context.Context, root, bin string, out io.Writer) error {
	in := func(pattern string) []string {
		paths, _ := filepath.Glob(filepath.Join(root, "deploy", pattern)) // the pattern is right
		return paths
	}
	promtool := tool(bin, "promtool")
	var errs []error
	for _, command := range [][]string{
		append([]string{promtool, "check", "config"}, in("prometheus/prometheus.yml")...),
		append([]string{promtool, "check", "rules", "--lint=all", "--lint-fatal"}, append(in("prometheus/rules/*.yml"), in("prometheus/kubernetes/*.yml")...)...),
		append([]string{promtool, "test", "rules"}, in("prometheus/tests/*.yml")...),
		append([]string{tool(bin, "amtool"), "check-config"}, in("alertmanager/alertmanager.yml")...),
	} {
		text, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w\n%s", command, err, text))
			continue
		}
		_, _ = fmt.Fprintf(out, "%s %s %s: ok\n", filepath.Base(command[0]), command[1], command[2])
	}
	return errors.Join(errs...)
}
