package postgres_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://me:s3cret@db.example/signpost":           "db.example:5432/signpost",
		"postgres://me:s3cret@[::1]:5433/x?sslmode=disable":  "[::1]:5433/x",
		"host=a,b port=1,2 user=me password=s3cret dbname=x": "a:1,b:2/x",
		"host=/run/postgresql user=me dbname=x":              "/run/postgresql:5432/x",
	} {
		if got := postgres.Address(pgtest.Open(t, url)); got != want {
			t.Errorf("%s is %s, want %s", url, got, want)
		}
	}
}

// TestCause tries servers that do not exist or do not let us in.
func TestCause(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := closed.Addr().(*net.TCPAddr).Port
	require.NoError(t, closed.Close())
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and never answers
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	real := pgtest.URL(t)
	for url, want := range map[string]string{
		fmt.Sprintf("postgres://me:s3cret@127.0.0.1:%d/x", port):                                  "connection refused",
		fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=me password=s3cret", port, port):    "connection refused",
		"host=/nowhere user=me password=s3cret":                                                   "no such file or directory",
		"postgres://me:s3cret@name.invalid/x":                                                     "name.invalid",
		fmt.Sprintf("postgres://me:s3cret@%s/x?sslmode=disable&connect_timeout=1", silent.Addr()): "no answer in time",
		strings.Replace(real, "/test_", "/missing_", 1):                                           "does not exist",
		asUser(t, real, "nobody_of_that_name"):                                                    `role "nobody_of_that_name" does not exist`,
	} {
		got := postgres.Cause(pgtest.Open(t, url).Ping(t.Context()))
		if !strings.Contains(got, want) || strings.Count(got, want) != 1 || strings.Contains(got, "s3cret") {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
	if got := postgres.Cause(fmt.Errorf("wait: %w", context.DeadlineExceeded)); got != "no answer in time" {
		t.Errorf("a deadline: %q", got)
	}
}
