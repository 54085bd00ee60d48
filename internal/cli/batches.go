package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/worker"
)

func batchesCommand(environ []string) *cobra.Command {
	return commandGroup("batches", "Work with click batches that failed",
		batchesListCommand(environ), batchesRetryCommand(environ), batchesDropCommand(environ))
}

// operator is who uses commands that ask the database themselves.
var operator = service.Actor{Name: "command line", Role: service.RoleAdmin}

func batchesListCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the click batches that failed, with the reason",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				failed, err := (&service.Service{Pool: pool}).ListFailedBatches(cmd.Context(), operator, math.MaxInt32)
				if err != nil {
					return fmt.Errorf("list failed batches: %w", err)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "BATCH\tCLICKS\tBYTES\tOLDEST CLICK\tFAILED\tREASON") // Flush returns any error
				for _, b := range failed {
					_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\n", b.ID, b.Clicks, b.Bytes,
						b.OldestAt.Format(time.RFC3339), b.FailedAt.Format(time.RFC3339), b.Reason)
				}
				return w.Flush()
			})
		},
	}
}

func batchesRetryCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "retry BATCH...",
		Short: "Have failed click batches ingested again",
		Long: `Have failed click batches ingested again, each as a whole and once. A batch that
failed because it is older than the ledger reaches is then ingested all the same:
be sure that it was not counted before.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			_, log, err := load(cmd, environ)
			if err != nil {
				return err
			}
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				river, err := worker.NewInserter(pool, log)
				if err != nil {
					return err
				}
				return eachBatch(cmd, "is tried again", ids, (&service.Service{Pool: pool, River: river}).RetryBatch)
			})
		},
	}
}

func batchesDropCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "drop BATCH...",
		Short: "Throw away the clicks of failed batches, for good",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				return eachBatch(cmd, "is dropped", ids, (&service.Service{Pool: pool}).DropBatch)
			})
		},
	}
}

// eachBatch runs do for each id and prints which ids were done. After an id that fails,
// it goes on with the others.
func eachBatch(cmd *cobra.Command, done string, ids []string, do func(ctx context.Context, actor service.Actor, id string) error) error {
	var errs []error
	for _, id := range ids {
		err := do(cmd.Context(), operator, id)
		if known := service.Classify(err); known != nil && known.Kind == service.KindNotFound {
			err = fmt.Errorf("%q is not the id of a failed batch: \"signpost batches list\" shows them", id)
		}
		if err == nil {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "batch %s %s\n", id, done)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
