package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/signpost/signpost/internal/client"
	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/pause"
)

// remoteFlags are the flags for the server that a command talks to, and for the token.
type remoteFlags struct{ server, token string }

func (f *remoteFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.server, "server", "", "address of the server (default $SIGNPOST_URL, or where \"signpost dev\" runs, or http://localhost:8080)")
	flags.StringVar(&f.token, "token", "", "API token (default $SIGNPOST_TOKEN, or what \"signpost dev\" keeps in .signpost)")
}

// client returns a client of the server that the flags and environ name.
func (f *remoteFlags) client(environ []string) (*client.Client, error) {
	server := cmp.Or(f.server, variable(environ, "SIGNPOST_URL"), devServer(), "http://localhost:8080")
	token, err := findToken(environ, server, f.token, "")
	if err != nil {
		return nil, err
	}
	return client.New(server, token)
}

// findToken returns the given token, or else the one in environ, or for a server of this
// machine the configured one or the one that "signpost dev" keeps. The token of this
// machine is sent to no other.
func findToken(environ []string, server, given, configured string) (string, error) {
	token := cmp.Or(given, variable(environ, "SIGNPOST_TOKEN"))
	if token == "" && isLocal(server) {
		token = cmp.Or(configured, devFile(devToken))
	}
	if token == "" {
		return "", errNoToken
	}
	return token, nil
}

var errNoToken = errors.New("there is no token: give one with --token or SIGNPOST_TOKEN")

// variable returns the value of the last name=value in environ.
func variable(environ []string, name string) (value string) {
	for _, entry := range environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = config.Bare(v)
		}
	}
	return value
}

// isLocal reports whether a server is on this machine.
func isLocal(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// devServer returns the address of the "signpost dev" that runs in this folder, "" if
// there is none. It is never one of another machine, whoever wrote the file: tokens will
// be sent there.
func devServer() string {
	if server := devFile(devAddress); isLocal(server) {
		return server
	}
	return ""
}

// devFile returns what "signpost dev" keeps in a file of the folder in which it was
// started, "" if there is none.
func devFile(name string) string {
	text, err := os.ReadFile(filepath.Join(".signpost", name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// retry runs fn until it succeeds, fails for good, or the server has been away for
// remotePatience. That time counts from the first failure, or from the last failure of
// a try that took longer than remoteReached. The pauses grow.
func retry(ctx context.Context, m *meter, fn func() error) error {
	var until time.Time
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, remoteWait) {
		begun := time.Now()
		err := fn()
		now := time.Now()
		if until.IsZero() || now.Sub(begun) > remoteReached {
			until, wait = now.Add(remotePatience), 100*time.Millisecond
		}
		if err == nil || ctx.Err() != nil || !client.Temporary(err) || now.After(until) {
			return err
		}
		next, when := wait, ""
		if asked := client.RetryAfter(err); asked > wait {
			next, when = asked, fmt.Sprintf(" in %v", asked)
		}
		m.say("%v; trying again%s", err, when)
		if err := pause.For(ctx, next); err != nil {
			return err
		}
	}
}

// writeWhole makes a file with the content that fn writes, either all of it or nothing.
// It is written to a file beside path, which is renamed when it is complete.
func writeWhole(path string, fn func(*os.File) error) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return fmt.Errorf("make the file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if err := fn(file); err != nil {
		return err
	}
	if err := errors.Join(file.Chmod(0o644), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	return os.Rename(file.Name(), path)
}

// rewind empties a file that was written only in part.
func rewind(file *os.File) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return file.Truncate(0)
}
