package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/shipping"
	"github.com/signpost/signpost/queries"
	"github.com/signpost/signpost/worker"
)

func spoolCommand(environ []string) *cobra.Command {
	return commandGroup("spool", "Ship clicks that a vanished process left, or that the database lost; drop those that belong nowhere",
		spoolShipCommand(environ), spoolReshipCommand(environ), spoolDropCommand(), spoolReplicasCommand(environ), spoolForgetCommand(environ))
}

func spoolReshipCommand(environ []string) *cobra.Command {
	var url, token string
	cmd := &cobra.Command{
		Use:   "reship",
		Short: "Have the running API of this machine ship again what it keeps",
		Long: `Have the running API of this machine ship again the clicks it has shipped within
SPOOL_KEEP, for a database that was set back: a failover to a standby that
lagged, or a restore. What is there already is not counted twice. Run it for
every API process; "spool ship --again" does it for the volume of a stopped one.
An API does so once a minute at most.

It needs a token of the role admin. Where none is given, an API of this machine is
sent ADMIN_TOKEN, or what "signpost dev" keeps in .signpost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(environ)
			if err != nil {
				return err
			}
			if url == "" {
				url = localURL(cfg.AdminAddr) + "/spool/reship"
			}
			token, err := findToken(environ, url, token, cfg.AdminToken)
			if err != nil {
				return err
			}
			return askReship(cmd.Context(), url, token, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "what to ask (default /spool/reship on ADMIN_ADDR)")
	cmd.Flags().StringVar(&token, "token", "", "token of the role admin (default $SIGNPOST_TOKEN)")
	return cmd
}

// askReship posts to an API's admin listener and prints the answer.
func askReship(ctx context.Context, url, token string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return fmt.Errorf("ask for reshipping: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask for reshipping: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	var answer struct {
		Segments, Waiting int
		Error             string
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for reshipping: %s answered %s %s", url, resp.Status, answer.Error)
	}
	_, err = fmt.Fprintf(out, "put back %d segments, %d more follow\n", answer.Segments, answer.Waiting)
	return err
}

func spoolShipCommand(environ []string) *cobra.Command {
	var again, remove, adopt bool
	cmd := &cobra.Command{
		Use:   "ship DIR",
		Short: "Ship the clicks that a vanished process left in DIR",
		Long: `Ship the clicks that a vanished process left in DIR: a SPOOL_DIR, or one
process's folder below it. What is in the database already is not counted twice.

Shipped segments stay in DIR for SPOOL_KEEP, as those of a living process do; run
this again, or let an API adopt the folder, to remove them then. With --remove
they go at once, so that the volume can be thrown away.

A folder that names another installation than this database is left alone: its
clicks are of other links. With --adopt they are counted here all the same.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, log, err := load(cmd, environ)
			if err != nil {
				return err
			}
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				installation, err := queries.New(pool).GetInstallation(cmd.Context())
				if err != nil {
					return fmt.Errorf("ask which installation this is: %w", err)
				}
				spool, err := clicks.OpenForShipping(args[0], clicks.Options{
					Keep: cfg.SpoolKeep, Installation: installation, AdoptForeign: adopt, Log: log,
				})
				if err != nil {
					return sayAdopt(fmt.Errorf("open spool: %w", err))
				}
				defer spool.Close() //nolint:errcheck // takes no clicks
				if again {
					if _, _, err := spool.Reship(time.Now()); err != nil {
						return fmt.Errorf("take shipped segments again: %w", err)
					}
				}
				before := spool.Stats()
				river, err := worker.NewInserter(pool, log)
				if err != nil {
					return err
				}
				shipper := shipping.New(shipping.Options{Pool: pool, River: river, Spool: spool, Log: log})
				if err := shipper.Ship(cmd.Context()); err != nil {
					return fmt.Errorf("ship: %w", err)
				}
				if err := shipper.Report(cmd.Context()); err != nil {
					return err
				}
				due := time.Now()
				if remove {
					due = due.AddDate(1, 0, 0) // longer than any segment is kept
				}
				if err := shipper.Expire(cmd.Context(), due); err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "shipped %d segments\n", before.Segments)
				if held := spool.Foreign(); err == nil && len(held) > 0 {
					err = sayAdopt(&clicks.ForeignError{Folders: held})
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&adopt, "adopt", false, "also ship what belongs to another installation, to this one")
	cmd.Flags().BoolVar(&again, "again", false, "also ship what was shipped before and is still kept, for a database that was set back")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove what was shipped at once instead of keeping it for SPOOL_KEEP")
	return cmd
}

// sayAdopt adds to an error about folders of another installation what can be done
// about them.
func sayAdopt(err error) error {
	if errors.As(err, new(*clicks.ForeignError)) {
		return fmt.Errorf("%w; --adopt counts their clicks here all the same, \"signpost spool drop\" throws them away", err)
	}
	return err
}

func spoolDropCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "drop FOLDER...",
		Short: "Throw away the clicks in the folders of vanished processes, for good",
		Long: `Throw away the clicks in the folders of vanished processes, for good, such as
those that belong to an installation that is no more. FOLDER is one process's
folder below a SPOOL_DIR, as the log and "spool ship" name it.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, folders []string) error {
			var errs []error
			for _, folder := range folders {
				n, err := clicks.DropFolder(folder)
				if err == nil {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "dropped %s with %d segments that were not shipped\n", folder, n)
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
}

func spoolReplicasCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "replicas",
		Short: "List the processes that take clicks, and what each has not shipped",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				replicas, err := queries.New(pool).ListReplicas(cmd.Context())
				if err != nil {
					return fmt.Errorf("list replicas: %w", err)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "ID\tHOST\tSTATE\tCLICKS\tCOMPLETE TO\tLAST SEEN") // Flush returns any error
				for _, r := range replicas {
					_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", r.ID, r.Host, replicaState(r.Gone), r.Spooled,
						r.CompleteTo.UTC().Format(time.RFC3339), r.SeenAt.UTC().Format(time.RFC3339))
				}
				return w.Flush()
			})
		},
	}
}

func replicaState(gone bool) string {
	if gone {
		return "gone"
	}
	return "alive"
}

func spoolForgetCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "forget ID...",
		Short: "Forget processes whose disk is lost, so that statistics no longer wait for them",
		Long: `Forget processes whose disk is lost, so that statistics no longer wait for their
clicks. "spool replicas" lists the ids. If the disk turns up after all, its clicks
are counted when they are shipped.

A process that has reported within the last minute is not forgotten.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				for _, id := range ids {
					n, err := queries.New(pool).ForgetReplica(cmd.Context(), id)
					if err != nil {
						return fmt.Errorf("forget replica: %w", err)
					}
					if n == 0 {
						return fmt.Errorf("no process %s is gone; \"signpost spool replicas\" lists them", id)
					}
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "forgot %d\n", len(ids))
				return err
			})
		},
	}
}
