package pgserver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindBinaries(t *testing.T) {
	t.Parallel()
	dir, err := FindBinaries()
	require.NoError(t, err)
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s is not complete: %v", dir, err)
		}
	}
	if _, err := findBinaries(9999); err == nil || errors.Is(err, ErrNoBinaries) {
		t.Errorf("a version that nobody has: %v; want an error of its own", err)
	}
}

func TestServerVersion(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]int{
		"postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)": 15,
		"postgres (PostgreSQL) 18beta1":                        18,
		"postgres (PostgreSQL) 9.6.24":                         9,
		"something else":                                       0,
	} {
		dir := t.TempDir()
		script := "#!/bin/sh\necho '" + said + "'\n"
		for _, name := range []string{"postgres", "initdb"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
		}
		if got := serverVersion(dir); got != want {
			t.Errorf("%q is version %d, want %d", said, got, want)
		}
	}
	if got := serverVersion(t.TempDir()); got != 0 {
		t.Errorf("an empty folder has version %d", got)
	}
}

func TestServerSeesNoneOfOurSecrets(t *testing.T) {
	t.Setenv("ADMIN_TOKEN", "s3cret")
	t.Setenv("PGPORT", "1")
	for _, entry := range serverEnv() {
		if entry == "ADMIN_TOKEN=s3cret" || entry == "PGPORT=1" {
			t.Errorf("the server gets %s", entry)
		}
	}
}
