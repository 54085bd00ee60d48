package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/internal/zone"
	"github.com/signpost/signpost/queries"
	"github.com/signpost/signpost/worker"
)

func clicksCommand(environ []string) *cobra.Command {
	return commandGroup("clicks", "Work with clicks that were counted", reclassifyCommand(environ))
}

const reclassifyHelp = `Judge clicks that were counted by the rules of this release, and by the patterns of
User-Agents that are marked: of which kind they are, with which browser and system.
Statistics change with the clicks.

Workers do it, in pieces, while clicks come in; this command waits and shows how far
they are. It may be interrupted: the workers go on, and the same command shows them
again. With --dry-run nothing is changed.

Imported clicks keep what their file said. What a marked network decided stays, since no
address is stored. A robot that a release without kinds counted gets the kind of its
program, if that has a name in the rules. Months that were archived stay as they are
until they are restored.`

func reclassifyCommand(environ []string) *cobra.Command {
	var from, to string
	var dryRun bool
	cmd := &cobra.Command{
		Use:     "reclassify --from TIME [--to TIME]",
		Short:   "Judge counted clicks by the rules of today",
		Long:    reclassifyHelp,
		Example: "  signpost clicks reclassify --from 2025-01-01 --to 2025-04-01 --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, log, err := load(cmd, environ)
			if err != nil {
				return err
			}
			days, err := zone.Load(cfg.TimeZone)
			if err != nil {
				return fmt.Errorf("TIME_ZONE: %w", err)
			}
			r, err := readReclassification(from, to, days, time.Now())
			if err != nil {
				return err
			}
			r.DryRun = dryRun
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				river, err := worker.NewInserter(pool, log)
				if err != nil {
					return err
				}
				id, err := worker.StartReclassification(cmd.Context(), pool, river, r)
				if err != nil {
					return err
				}
				run, err := followReclassification(cmd.Context(), pool, id, cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				return printReclassification(cmd.OutOrStdout(), run)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "judge clicks from this time on: a date, which is midnight in TIME_ZONE, or a time such as 2025-01-31T12:00:00Z")
	f.StringVar(&to, "to", "", "judge clicks before this time (default now)")
	f.BoolVar(&dryRun, "dry-run", false, "only count what would change")
	_ = cmd.MarkFlagRequired("from") // the flag is there
	return cmd
}

// readReclassification reads the range, whose end is at most now: clicks to come are
// judged as they come in.
func readReclassification(from, to string, day *time.Location, now time.Time) (worker.Reclassification, error) {
	start, err := readMoment("--from", from, day)
	if err != nil {
		return worker.Reclassification{}, err
	}
	end := now
	if to != "" {
		if end, err = readMoment("--to", to, day); err != nil {
			return worker.Reclassification{}, err
		}
	}
	if end.After(now) {
		end = now
	}
	if !start.Before(end) {
		return worker.Reclassification{}, errors.New("--from must be before --to, and in the past")
	}
	return worker.Reclassification{From: start, To: end}, nil
}

// readMoment reads the value of a flag: a date, or a time in RFC 3339.
func readMoment(flag, text string, day *time.Location) (time.Time, error) {
	t, err := time.ParseInLocation(time.DateOnly, text, day)
	if err != nil {
		t, err = time.Parse(time.RFC3339, text)
	}
	if err != nil || t.Year() < 1970 || t.Year() > 9998 {
		return time.Time{}, fmt.Errorf("%s: %q must be a date such as 2025-01-31, or a time such as 2025-01-31T12:00:00Z", flag, text)
	}
	return t, nil
}

const (
	followPause  = 300 * time.Millisecond
	followReport = 5 * time.Second
)

// followReclassification waits until workers have done a reclassification, and says now
// and then how far they are.
func followReclassification(ctx context.Context, pool *pgxpool.Pool, id int64, progress io.Writer) (queries.Reclassification, error) {
	for next := time.Now().Add(followReport); ; {
		run, err := queries.New(pool).GetReclassification(ctx, id)
		if err != nil || run.FinishedAt != nil {
			return run, err
		}
		if time.Now().After(next) {
			next = time.Now().Add(followReport)
			_, _ = fmt.Fprintf(progress, "looked at %s clicks, up to %s\n", humanize.Comma(run.LookedAt), run.PositionAt.UTC().Format(time.RFC3339))
		}
		if err := pause.For(ctx, followPause); err != nil {
			return run, fmt.Errorf("workers go on without this command: %w", err)
		}
	}
}

func printReclassification(out io.Writer, run queries.Reclassification) error {
	var changes worker.KindChanges
	if err := json.Unmarshal(run.Changes, &changes); err != nil {
		return fmt.Errorf("read counts: %w", err)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	done, total := "changed", int64(0)
	if run.DryRun {
		done = "would change"
	}
	for _, was := range visits.Kinds() {
		for _, is := range visits.Kinds() {
			if n := changes[was][is]; n > 0 {
				total += n
				_, _ = fmt.Fprintf(w, "%s\t→ %s\t%s\n", was, is, humanize.Comma(n)) // Flush returns any error
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s of %s clicks from %s to %s %s.\n", humanize.Comma(total), humanize.Comma(run.LookedAt),
		run.FromAt.UTC().Format(time.RFC3339), run.ToAt.UTC().Format(time.RFC3339), done)
	return err
}
