package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/archive"
	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
	"github.com/signpost/signpost/worker"
)

// noArchive is the value of EVENTS_ARCHIVE with which old events are deleted.
const noArchive = "none"

func eventsCommand(environ []string) *cobra.Command {
	return commandGroup("events", "Work with months of events that were archived",
		eventsListCommand(environ), eventsRestoreCommand(environ))
}

func eventsListCommand(environ []string) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the months of events, in the database and archived",
		Long: `List the months of events in the database and the parts that were archived, as the
database remembers them; with --from, the parts that an archive has.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			if from != "" {
				_, _ = fmt.Fprintln(w, "MONTH\tPART\tINSTALLATION\tROWS\tBYTES\tFILE") // Flush returns any error
				if err := listArchive(cmd.Context(), w, environ, from); err != nil {
					return err
				}
				return w.Flush()
			}
			_, _ = fmt.Fprintln(w, "MONTH\tPART\tSTATE\tROWS\tBYTES\tFILE")
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				if err := listDatabase(cmd.Context(), w, pool); err != nil {
					return err
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "list an archive instead: a folder or s3://bucket/prefix")
	return cmd
}

func listDatabase(ctx context.Context, w io.Writer, pool *pgxpool.Pool) error {
	parts, err := queries.New(pool).ListEventParts(ctx)
	if err != nil {
		return fmt.Errorf("list parts: %w", err)
	}
	for _, p := range parts {
		state := p.State
		if state == "dropped" {
			state = "archived"
			if p.File == nil {
				state = "deleted"
			}
		}
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", p.Month.Format("2006-01"), p.Part, state,
			numberOrDash(p.Rows), numberOrDash(p.Bytes), fileOrDash(p))
	}
	months, err := postgres.Months(ctx, pool)
	if err != nil {
		return err
	}
	for _, month := range months {
		_, _ = fmt.Fprintf(w, "%s\t-\tin the database\t-\t-\t-\n", month.Format("2006-01"))
	}
	return nil
}

func listArchive(ctx context.Context, w io.Writer, environ []string, from string) error {
	cfg, err := config.Load(environ)
	if err != nil {
		return err
	}
	store, err := openArchive(cfg, from)
	if err != nil {
		return err
	}
	manifests, err := archive.Manifests(ctx, store, "")
	if err != nil {
		return err
	}
	for _, m := range manifests {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%s\n", m.Month, m.Part, cmp.Or(m.Installation, "-"), m.Rows, m.Bytes, m.File)
	}
	return nil
}

func numberOrDash(n *int64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

func fileOrDash(p queries.EventPart) string {
	if p.File == nil || p.Archive == nil {
		return "-"
	}
	return *p.Archive + "/" + *p.File
}

func eventsRestoreCommand(environ []string) *cobra.Command {
	var from string
	var days int
	cmd := &cobra.Command{
		Use:   "restore MONTH",
		Short: "Bring the events of an archived month back, such as 2025-03",
		Long: `Bring the events of an archived month back into the database, all parts of it or,
when one is damaged, none. Totals do not change: they never left. What is in the
database already is not there twice. After --days the month is archived again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			month, err := worker.ParseMonth(args[0])
			if err != nil {
				return err
			}
			if days < 1 || days > 36500 {
				return fmt.Errorf("--days is %d: it must be from 1 to 36500", days)
			}
			cfg, _, err := load(cmd, environ)
			if err != nil {
				return err
			}
			if from == "" {
				from = cfg.EventsArchive
			}
			store, err := openArchive(cfg, from)
			if err != nil {
				return err
			}
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				done, err := worker.RestoreMonth(cmd.Context(), pool, store, worker.Restoring{
					Month: month, Hold: time.Duration(days) * 24 * time.Hour,
				})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored %s: %d rows of %d parts, for %d days\n",
					args[0], done.Rows, done.Parts, days)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "where the archive is: a folder or s3://bucket/prefix (default EVENTS_ARCHIVE)")
	cmd.Flags().IntVar(&days, "days", 30, "for how many days the month stays before it is archived again")
	return cmd
}

// openArchive returns the archive that a target names.
func openArchive(cfg config.Config, target string) (archive.Store, error) {
	if target == "" || target == noArchive {
		return nil, errors.New("there is no archive: name one with --from or EVENTS_ARCHIVE")
	}
	return archive.Open(target, archive.S3{
		Endpoint: cfg.AWSEndpointURL, Region: cfg.AWSRegion,
		AccessKey: cfg.AWSAccessKeyID, SecretKey: cfg.AWSSecretAccessKey, SessionToken: cfg.AWSSessionToken,
	})
}

// retention returns the configured retention of old events.
func retention(cfg config.Config) (worker.Retention, error) {
	r := worker.Retention{Months: cfg.EventsRetentionMonths, Changes: cfg.ChangesRetention}
	if cfg.EventsArchive == "" || cfg.EventsArchive == noArchive {
		return r, nil
	}
	var err error
	if r.Archive, err = openArchive(cfg, cfg.EventsArchive); err != nil {
		return r, fmt.Errorf("EVENTS_ARCHIVE: %w", err)
	}
	return r, nil
}
