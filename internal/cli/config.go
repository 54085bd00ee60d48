package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/config"
)

func configCommand(environ []string) *cobra.Command {
	var markdown bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in force, with secrets hidden",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := config.Markdown()
			if !markdown {
				cfg, err := config.Load(environ)
				if err != nil {
					return err
				}
				text = cfg.String()
			}
			_, err := io.WriteString(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print the reference page of all variables instead")
	return cmd
}
