package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/zone"
	"github.com/signpost/signpost/worker"
)

func workerCommand(environ []string) *cobra.Command {
	var queues string
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Ingest clicks, apply imports and do the periodic work",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := newProcess(cmd, environ, "worker")
			if err != nil {
				return err
			}
			return p.run(cmd.Context(), p.addTracing, p.addJobsPool, p.addAdmin,
				func(ctx context.Context) error { return p.addWorker(ctx, queues) })
		},
	}
	cmd.Flags().StringVar(&queues, "queues", "", "queues to work and the jobs to run at once in each, such as clicks=2,imports=4 (default all)")
	return cmd
}

// addWorker works on River's queues. It waits for Postgres, and for nothing else.
func (p *process) addWorker(ctx context.Context, queues string) error {
	chosen, err := worker.ParseQueues(queues)
	if err != nil {
		return fmt.Errorf("--queues: %w", err)
	}
	retention, err := retention(p.cfg)
	if err != nil {
		return err
	}
	days, err := zone.Load(p.cfg.TimeZone)
	if err != nil {
		return fmt.Errorf("TIME_ZONE: %w", err)
	}
	w, err := worker.New(worker.Options{
		Pool: p.jobs, Queues: chosen, OwnHosts: p.cfg.OwnHosts(), Registry: p.registry, Log: p.log,
		LedgerKeep: p.cfg.ClickLedgerKeep, ImportKeep: p.cfg.ImportKeep, Zone: days, Retention: retention,
		Middleware: p.jobTraces(), Host: clicks.Clean(hostName(), 255), Version: version,
	})
	if err != nil {
		return err
	}
	if err := postgres.WaitForSchema(ctx, p.jobs, p.log); err != nil {
		return err
	}
	if err := w.Start(ctx); err != nil {
		return err
	}
	p.add("worker", w.Stop)
	return nil
}
