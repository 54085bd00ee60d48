package cli

import (
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

func tokenCommand(environ []string) *cobra.Command {
	return commandGroup("token", "Create, list and revoke API tokens",
		tokenCreateCommand(environ), tokenListCommand(environ), tokenRevokeCommand(environ))
}

func tokenCreateCommand(environ []string) *cobra.Command {
	var name, role, expires string
	cmd := &cobra.Command{
		Use:   "create --name NAME --role admin|editor|reader [--expires DURATION]",
		Short: "Create a token and print its secret, once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			expiresAt, err := parseExpiry(expires, time.Now())
			if err != nil {
				return err
			}
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				fields := service.TokenFields{}
				fields.Name.Value, fields.Role.Value = name, role
				if expiresAt != nil {
					fields.ExpiresAt.Sent, fields.ExpiresAt.Value = true, *expiresAt
				}
				tokens := &service.Service{Pool: pool}
				token, secret, err := tokens.CreateToken(cmd.Context(), service.Actor{Name: "signpost token", Role: service.RoleAdmin}, fields, nil)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", secret)
				cmd.PrintErrf("token %d (%s, %s) created; the secret is not shown again\n", token.ID, token.Name, token.Role)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "who or what will use it")
	cmd.Flags().StringVar(&role, "role", "", "admin (everything), editor (links and reading) or reader (reading)")
	cmd.Flags().StringVar(&expires, "expires", "", "how long it is valid, such as 720h or 90d (default for ever)")
	_ = cmd.MarkFlagRequired("name")
	_ = cmd.MarkFlagRequired("role")
	return cmd
}

// parseExpiry reads a duration, in which d stands for 24 hours.
func parseExpiry(s string, now time.Time) (*time.Time, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // no expiry is no time
	}
	d, err := time.ParseDuration(s)
	if days, found := cutDays(s); found {
		d, err = time.Duration(days)*24*time.Hour, nil
	}
	if err != nil || d <= 0 {
		return nil, fmt.Errorf("--expires %q: give a positive duration such as 720h or 90d", s)
	}
	at := now.Add(d)
	return &at, nil
}

func cutDays(s string) (int, bool) {
	if len(s) < 2 || s[len(s)-1] != 'd' {
		return 0, false
	}
	days, err := strconv.Atoi(s[:len(s)-1])
	return days, err == nil && days <= 36500
}

func tokenListCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all tokens",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "ID\tNAME\tROLE\tCREATED\tEXPIRES\tREVOKED")
				const page = 100
				for after := int64(0); ; {
					tokens, err := queries.New(pool).ListTokens(cmd.Context(), after, 0, page)
					if err != nil {
						return fmt.Errorf("list tokens: %w", err)
					}
					for _, t := range tokens {
						_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, t.Role,
							t.CreatedAt.UTC().Format(time.RFC3339), orDash(t.ExpiresAt), orDash(t.RevokedAt))
						after = t.ID
					}
					if len(tokens) < page {
						return w.Flush()
					}
				}
			})
		},
	}
}

func orDash(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func tokenRevokeCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke a token, at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return fmt.Errorf("%q is not the id of a token: \"signpost token list\" shows them", args[0])
			}
			return withPool(cmd, environ, func(pool *pgxpool.Pool) error {
				n, err := queries.New(pool).RevokeToken(cmd.Context(), id)
				switch {
				case err != nil:
					return fmt.Errorf("revoke token %d: %w", id, err)
				case n == 0:
					return fmt.Errorf("there is no token %d", id)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "token %d is revoked\n", id)
				return err
			})
		},
	}
}

// withPool runs a short command on the database.
func withPool(cmd *cobra.Command, environ []string, fn func(*pgxpool.Pool) error) error {
	cfg, _, err := load(cmd, environ)
	if err != nil {
		return err
	}
	pool, err := postgres.Open(cmd.Context(), cfg.DatabaseURL, postgres.Options{Role: "command", MaxConns: 2})
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	defer pool.Close()
	if err := postgres.CheckSchema(cmd.Context(), pool); err != nil {
		if postgres.Unavailable(err) {
			return fmt.Errorf("the database cannot be reached: %s: %s", postgres.Address(pool), postgres.Cause(err))
		}
		return err
	}
	return fn(pool)
}
