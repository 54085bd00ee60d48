// Signpost is a self-hosted URL shortener whose numbers can be trusted: one
// binary with several roles. See README.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/signpost/signpost/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// A second signal ends the process at once: nothing that was answered is lost by that.
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
