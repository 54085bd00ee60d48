package postgres

import (
	"context"
	"errors"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// CheckURL returns an error that says why url cannot name a database, nil if it can.
// The text repeats no part of url: if url is mistyped, its password may be in any part.
func CheckURL(url string) error {
	_, err := parseURL(url)
	return err
}

func parseURL(raw string) (*pgxpool.Config, error) {
	if err := checkForm(raw); err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(raw)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil { // the text of the outer error repeats raw
			return nil, inner
		}
		return nil, errNoAddress
	}
	for name := range cfg.ConnConfig.RuntimeParams {
		if !parameterName.MatchString(name) { // the driver would send it to the server as a parameter
			return nil, errNoAddress
		}
	}
	return cfg, nil
}

var (
	errNoAddress  = errors.New("it is neither a postgres:// URL nor a keyword/value string")
	keywords      = regexp.MustCompile(`^\s*[a-z_]+\s*=`)
	parameterName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
)

// checkForm finds texts that the driver would read differently from how they were
// meant, above all if characters of a password end a part of a URL.
func checkForm(raw string) error {
	if keywords.MatchString(raw) {
		return nil
	}
	scheme, rest, isURL := strings.Cut(raw, "://")
	switch {
	case !isURL:
		return errNoAddress
	case scheme != "postgres" && scheme != "postgresql":
		return errors.New("it does not start with postgres:// or postgresql://")
	case strings.Contains(rest, "#"):
		return errors.New("it has a # in it, which ends a URL: write %23")
	}
	beforeQuery, query, _ := strings.Cut(rest, "?")
	_, path, _ := strings.Cut(beforeQuery, "/")
	if name, _, _ := strings.Cut(query, "="); strings.Contains(path, "@") || strings.Contains(name, "@") {
		return errors.New("it has a / or ? before an @: in a user name or password write %2F and %3F")
	}
	var escape url.EscapeError
	if _, err := url.Parse(raw); errors.As(err, &escape) {
		return errors.New("it has a % that begins no code of two digits: for itself write %25")
	} else if err != nil {
		return errors.New("it is not a valid URL: special characters in a user name or password have to be percent-encoded, and a port is a number")
	}
	return nil
}

// Address names the server and the database that a pool connects to as
// host:port/database, without user and password. Several servers are separated by
// commas.
func Address(pool *pgxpool.Pool) string {
	conn := pool.Config().ConnConfig
	servers := []string{net.JoinHostPort(conn.Host, strconv.Itoa(int(conn.Port)))}
	for _, f := range conn.Fallbacks {
		// The same server is listed once more where TLS is optional.
		if s := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))); !slices.Contains(servers, s) {
			servers = append(servers, s)
		}
	}
	return strings.Join(servers, ",") + "/" + conn.Database
}

// Cause says in a few words why there is no connection, such as "connection refused".
// err is from the driver. If several addresses were tried, each different cause is
// given once.
func Cause(err error) string {
	var tries interface{ Unwrap() []error }
	if errors.As(err, &tries) {
		var causes []string
		for _, try := range tries.Unwrap() {
			if c := Cause(try); !slices.Contains(causes, c) {
				causes = append(causes, c)
			}
		}
		return strings.Join(causes, "; ")
	}
	var server *pgconn.PgError
	var name *net.DNSError
	var system syscall.Errno
	switch {
	case errors.As(err, &server):
		return server.Message
	case errors.As(err, &name) && name.IsNotFound:
		return "unknown host " + name.Name
	case errors.As(err, &name):
		return "the host " + name.Name + " cannot be looked up: " + name.Err
	case errors.As(err, &system):
		return system.Error()
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return "no answer in time"
	}
	return err.Error()
}
