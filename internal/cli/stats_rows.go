package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/rollup"
)

// dayFlags are the flags of a range of UTC days.
type dayFlags struct{ from, to string }

func (f *dayFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.from, "from", "", "first UTC day, such as 2025-03-01 (default the first with clicks)")
	cmd.Flags().StringVar(&f.to, "to", "", "the day after the last one (default no end)")
}

func (f *dayFlags) parse() (from, to time.Time, err error) {
	for _, flag := range []struct {
		name, text string
		day        *time.Time
	}{{"--from", f.from, &from}, {"--to", f.to, &to}} {
		if flag.text == "" {
			continue
		}
		if *flag.day, err = time.Parse(time.DateOnly, flag.text); err != nil {
			return from, to, fmt.Errorf("%s: %q must be a day such as 2025-03-01", flag.name, flag.text)
		}
	}
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return from, to, errors.New("--to must be after --from")
	}
	return from, to, nil
}

var errStatisticsDiffer = errors.New("the statistics do not agree with the events: see stats rebuild")

func statsVerifyCommand(environ []string) *cobra.Command {
	var days dayFlags
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Compare the statistics with the events",
		Long: `Compare every row of the statistics with the events, also while clicks come in.
Months whose events are archived cannot be compared. It fails if a row differs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, to, err := days.parse()
			if err != nil {
				return err
			}
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				found, err := rollup.CheckRange(cmd.Context(), pool, from, to)
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), found); err != nil {
					return err
				}
				if found.Differ > 0 {
					return errStatisticsDiffer
				}
				return nil
			})
		},
	}
	days.add(cmd)
	return cmd
}

func statsRebuildCommand(environ []string) *cobra.Command {
	var days dayFlags
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Have the statistics counted again from the events",
		Long: `Have a worker count the statistics again from the events, while clicks come in.
Those of months whose events are archived stay as they are. The metric
signpost_rollup_recounts_waiting says how much is left to do.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, to, err := days.parse()
			if err != nil {
				return err
			}
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				n, err := rollup.Rebuild(cmd.Context(), pool, from, to)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d rows are counted again by the workers\n", n)
				return err
			})
		},
	}
	days.add(cmd)
	return cmd
}
