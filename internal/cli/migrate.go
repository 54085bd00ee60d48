package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/postgres"
)

func migrateCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database schema to this release",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, log, err := load(cmd, environ)
			if err != nil {
				return err
			}
			if err := postgres.Migrate(cmd.Context(), cfg.DatabaseURL, log); err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
			return nil
		},
	}
}
