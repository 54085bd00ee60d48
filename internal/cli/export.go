package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

const exportHelp = `Save all users, links (urls) or events as a file, which "signpost import" reads.

With --output, the file is there when it is whole and not before; a connection
that breaks is made again. To standard output, it is cut off then, and the exit
code is 1.`

// exportFlags are the flags of "signpost export".
type exportFlags struct {
	remoteFlags
	format, output, domain string
	filters                []string
}

func exportCommand(environ []string) *cobra.Command {
	var flags exportFlags
	cmd := &cobra.Command{
		Use:       "export users|urls|events",
		Short:     "Save all rows of a list on a server as CSV or NDJSON",
		Long:      exportHelp,
		Example:   "  signpost export urls --output links.csv\n  signpost export events --format ndjson --filter url_id=7 --filter from=2026-01-01T00:00:00Z",
		ValidArgs: []string{"users", "urls", "events"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := flags.query()
			if err != nil {
				return err
			}
			if flags.domain != "" && args[0] != "urls" {
				return errors.New("--domain is for links: signpost export urls --domain HOST")
			}
			remote, err := flags.client(environ)
			if err != nil {
				return err
			}
			defer remote.Close()
			err = flags.save(cmd, func(ctx context.Context, w io.Writer) error {
				return remote.Export(ctx, args[0], flags.format, query, w)
			})
			if err != nil {
				return fmt.Errorf("export %s: %w", args[0], err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	flags.add(f)
	f.StringVar(&flags.format, "format", "csv", "csv or ndjson")
	f.StringVarP(&flags.output, "output", "o", "", "file to write (default standard output)")
	f.StringVar(&flags.domain, "domain", "", "only links of the domain with this host")
	f.StringArrayVar(&flags.filters, "filter", nil, "filter of the list, such as tag=sale; may be repeated")
	return cmd
}

// query returns the parameters that the flags stand for.
func (f *exportFlags) query() (url.Values, error) {
	if f.format != "csv" && f.format != "ndjson" {
		return nil, fmt.Errorf("--format must be csv or ndjson, not %q", f.format)
	}
	query := url.Values{}
	if f.domain != "" {
		query.Set("domain", f.domain)
	}
	for _, filter := range f.filters {
		name, value, ok := strings.Cut(filter, "=")
		if !ok || name == "" || name == "format" {
			return nil, fmt.Errorf("--filter must be a filter of the list and its value, such as tag=sale, not %q", filter)
		}
		query.Set(name, value)
	}
	return query, nil
}

// save makes fetch write the file. If fetch is interrupted, it starts again from the
// beginning, but only if the output is a file.
func (f *exportFlags) save(cmd *cobra.Command, fetch func(context.Context, io.Writer) error) error {
	ctx := cmd.Context()
	if f.output == "" {
		return fetch(ctx, cmd.OutOrStdout())
	}
	m := newMeter(cmd.ErrOrStderr())
	defer m.end()
	return writeWhole(f.output, func(file *os.File) error {
		err := retry(ctx, m, func() error {
			if err := rewind(file); err != nil {
				return err
			}
			m.begin("receiving", -1, true)
			return fetch(ctx, &countedWriter{out: file, count: m.at})
		})
		if err != nil {
			return fmt.Errorf("%w; nothing was saved", err)
		}
		return nil
	})
}

// countedWriter reports how many bytes were written.
type countedWriter struct {
	out   io.Writer
	count func(int64)
	n     int64
}

func (c *countedWriter) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	c.n += int64(n)
	c.count(c.n)
	return n, err
}
