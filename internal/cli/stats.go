package cli

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/client"
	"github.com/signpost/signpost/internal/zone"
)

const statsHelp = `Show the clicks on a link: totals, the course of the range, and the most
frequent values of each dimension.

LINK is a short URL, a short code or an id.`

// statsFlags are the flags of "signpost stats".
type statsFlags struct {
	remoteFlags
	span, from, to, zone, interval string
	filters                        []string
}

func statsCommand(environ []string) *cobra.Command {
	var flags statsFlags
	cmd := &cobra.Command{
		Use:     "stats LINK",
		Short:   "Show the clicks on a link",
		Long:    statsHelp,
		Example: "  signpost stats spring\n  signpost stats https://sho.rt/spring --range 12mo --tz Europe/Berlin --filter kind=person",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := flags.query()
			if err != nil {
				return err
			}
			host, code, err := readLink(args[0])
			if err != nil {
				return err
			}
			remote, err := flags.client(environ)
			if err != nil {
				return err
			}
			defer remote.Close()
			st, err := remote.LinkStatistics(cmd.Context(), host, code, query)
			if err != nil {
				return fmt.Errorf("statistics of %s: %w", args[0], err)
			}
			return printStatistics(cmd.OutOrStdout(), st)
		},
	}
	cmd.AddCommand(statsVerifyCommand(environ), statsRebuildCommand(environ))
	f := cmd.Flags()
	flags.add(f)
	f.StringVar(&flags.span, "range", "", "today, yesterday, 24h, 7d, 30d, 90d, 12mo, mtd, ytd or all (default 30d)")
	f.StringVar(&flags.from, "from", "", "start in place of --range, a date or a time")
	f.StringVar(&flags.to, "to", "", "end, which is not part of the range (default now)")
	f.StringVar(&flags.zone, "tz", "", "time zone such as Europe/Berlin (default the server's TIME_ZONE)")
	f.StringVar(&flags.interval, "interval", "", "15m, hour, day, week or month (default by the length of the range)")
	f.StringArrayVar(&flags.filters, "filter", nil, "filter such as kind=person or country=DE,AT; may be repeated")
	return cmd
}

// topDimensions are the breakdowns that are shown, and topValues is how many values of
// each.
var topDimensions = []string{"kinds", "countries", "referrers", "browsers", "systems", "devices", "triggers"}

const topValues = "5"

// filterDimensions are the names of filters.
var filterDimensions = []string{"kind", "country", "referrer", "browser", "system", "device", "trigger"}

// query returns the parameters that the flags stand for.
func (f *statsFlags) query() (url.Values, error) {
	query := url.Values{"top": {topValues}}
	for name, value := range map[string]string{"range": f.span, "from": f.from, "to": f.to, "tz": f.zone, "interval": f.interval} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for _, filter := range f.filters {
		name, value, ok := strings.Cut(filter, "=")
		if !ok || !slices.Contains(filterDimensions, name) {
			return nil, fmt.Errorf("--filter must be one of %s with its values, such as kind=person, not %q", strings.Join(filterDimensions, ", "), filter)
		}
		query.Set(name, value)
	}
	query.Set("breakdowns", strings.Join(topDimensions, ","))
	return query, nil
}

// readLink returns the host and the code of a short URL. The host of a code alone is "".
func readLink(text string) (host, code string, err error) {
	if !strings.Contains(text, "://") {
		return "", strings.TrimPrefix(text, "/"), nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || len(u.Path) < 2 {
		return "", "", fmt.Errorf("%q is not a short URL", text)
	}
	return u.Hostname(), strings.TrimPrefix(strings.TrimPrefix(u.Path, "/"), "r/"), nil
}

// printStatistics writes statistics for people.
func printStatistics(out io.Writer, st client.Statistics) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	n := st.Totals
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // Flush returns any error
	say("%s to %s (%s)\n\n", st.Range.From.Format("2006-01-02 15:04"), st.Range.To.Format("2006-01-02 15:04"), st.Range.TZ)
	say("clicks\t%s\n", humanize.Comma(n.Clicks))
	say("people\t%s\t%s visitors, by day\n", humanize.Comma(n.People), humanize.Comma(n.Visitors))
	say("robots\t%s\n", humanize.Comma(n.Robots))
	counts, most := make([]int64, len(st.Series)), int64(0)
	for i, bucket := range st.Series {
		counts[i], most = bucket.Clicks, max(most, bucket.Clicks)
	}
	say("\n%s\neach %s, at most %s\n", sparkline(counts), st.Range.Interval, humanize.Comma(most))
	for _, dimension := range topDimensions {
		if rows := st.Breakdowns[dimension]; len(rows) > 0 {
			say("\n%s\n", dimension)
			for _, row := range rows {
				say("  %s\t%s\t%.1f %%\n", printable(row.Value), humanize.Comma(row.Clicks), 100*row.Share)
			}
		}
	}
	loc, err := zone.Load(st.Range.TZ)
	if err != nil { // the server knows a newer one
		loc = time.UTC
	}
	say("\nas of %s", st.AsOf.In(loc).Format("2006-01-02 15:04:05 MST"))
	if st.Pending > 0 {
		say("; %s clicks are not in it yet", humanize.Comma(st.Pending))
	}
	say("\n")
	return w.Flush()
}

// sparkLength is how many signs a sparkline has at most.
const sparkLength = 80

// sparkline draws the course of counts. Neighbours are added up if there are more than
// fit on a line.
func sparkline(counts []int64) string {
	each := (len(counts) + sparkLength - 1) / sparkLength
	var sums []int64
	for i, n := range counts {
		if i%each == 0 {
			sums = append(sums, 0)
		}
		sums[len(sums)-1] += n
	}
	most := int64(0)
	for _, n := range sums {
		most = max(most, n)
	}
	line := make([]rune, len(sums))
	bars := []rune("▁▂▃▄▅▆▇█")
	for i, n := range sums {
		if line[i] = ' '; n > 0 {
			line[i] = bars[(n*int64(len(bars))-1)/most]
		}
	}
	return string(line)
}

// printable leaves out what a terminal might act on: values come from strangers.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return -1
		}
		return r
	}, text)
}
