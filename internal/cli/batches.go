package cli

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/signpost/signpost/queries"
	"github.com/signpost/signpost/worker"
)

func batchesCommand(environ []string) *cobra.Command {
	return commandGroup("batches", "Work with click batches that failed",
		batchesListCommand(environ), batchesRetryCommand(environ), batchesDropCommand(environ))
}

func batchesListCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the click batches that failed, with the reason",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				failed, err := queries.New(pool).ListFailedBatches(cmd.Context())
				if err != nil {
					return fmt.Errorf("list failed batches: %w", err)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "BATCH\tCLICKS\tBYTES\tOLDEST CLICK\tFAILED\tREASON") // Flush returns any error
				for _, b := range failed {
					_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\n", b.ID, b.Clicks, b.Bytes,
						b.OldestAt.UTC().Format(time.RFC3339), orDash(b.FailedAt), *b.Failure)
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
				return eachBatch(cmd, "is tried again", ids, func(id string) (int64, error) {
					return worker.RetryBatch(cmd.Context(), pool, river, id)
				})
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
				return eachBatch(cmd, "is dropped", ids, func(id string) (int64, error) {
					return queries.New(pool).DropFailedBatch(cmd.Context(), id)
				})
			})
		},
	}
}

// eachBatch runs do for each id and prints which ids were done. After an id that fails,
// it goes on with the others.
func eachBatch(cmd *cobra.Command, done string, ids []string, do func(id string) (int64, error)) error {
	var errs []error
	for _, id := range ids {
		n, err := do(id)
		if err == nil && n == 0 {
			err = fmt.Errorf("%q is not the id of a failed batch: \"signpost batches list\" shows them", id)
		}
		if err == nil {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "batch %s %s\n", id, done)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
