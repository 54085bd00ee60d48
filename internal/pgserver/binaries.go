package pgserver

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const oldestServer = 15

// ErrNoBinaries is returned if no usable PostgreSQL server is installed. Its text names
// the packages to install.
var ErrNoBinaries = errors.New("no PostgreSQL 15 or later server programs (initdb, postgres) are installed here: " +
	"`apt-get install postgresql` (Debian, Ubuntu), `dnf install postgresql-server postgresql-contrib` (Fedora) " +
	"or `brew install postgresql@17` (macOS) gets them")

// binaryFolders are the folders, besides PATH, in which distributions keep server
// programs.
var binaryFolders = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/usr/local/pgsql/bin",
}

type installation struct {
	dir   string
	major int
}

// FindBinaries returns the folder of the PostgreSQL server programs to use: the one on
// PATH, or else the newest that is installed. It returns ErrNoBinaries if there is none
// of version 15 or later.
func FindBinaries() (string, error) {
	found, err := findBinaries(0)
	return found.dir, err
}

// findBinaries is like FindBinaries, for one major version, or for any if major is 0.
func findBinaries(major int) (installation, error) {
	found := installations()
	for _, in := range found {
		if in.major >= oldestServer && (major == 0 || in.major == major) {
			return in, nil
		}
	}
	if major == 0 || len(found) == 0 {
		return installation{}, ErrNoBinaries
	}
	return installation{}, fmt.Errorf("the database was made by PostgreSQL %d, whose server programs are not installed here (found %d): "+
		"install version %d, or move the data with pg_dump", major, found[0].major, major)
}

// installations lists the installed servers: the one on PATH first, then the others
// from the newest on.
func installations() []installation {
	var others []installation
	for _, pattern := range binaryFolders {
		dirs, _ := filepath.Glob(pattern) // the only error is a malformed pattern
		for _, dir := range dirs {
			if major := serverVersion(dir); major > 0 {
				others = append(others, installation{dir, major})
			}
		}
	}
	slices.SortStableFunc(others, func(a, b installation) int { return cmp.Compare(b.major, a.major) })
	if dir := onPath(); dir != "" {
		if major := serverVersion(dir); major > 0 {
			return append([]installation{{dir, major}}, others...)
		}
	}
	return others
}

func onPath() string {
	postgres, err := exec.LookPath("postgres")
	if err != nil {
		return ""
	}
	// initdb looks for postgres in its own folder, so the folder must hold both. A link
	// in /usr/bin may stand alone.
	if resolved, err := filepath.EvalSymlinks(postgres); err == nil {
		postgres = resolved
	}
	dir, err := filepath.Abs(filepath.Dir(postgres))
	if err != nil {
		return ""
	}
	return dir
}

var versionPattern = regexp.MustCompile(`\) (\d+)`)

// serverVersion returns the major version of the programs in dir, 0 if some are
// missing.
func serverVersion(dir string) int {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	match := versionPattern.FindSubmatch(out)
	if match == nil {
		return 0
	}
	major, _ := strconv.Atoi(string(match[1])) // digits only
	return major
}

// dataVersion returns the major version of the server that made the data folder, 0 if
// there is no data yet.
func dataVersion(data string) (int, error) {
	content, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read version of the database: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, fmt.Errorf("read version of the database: %w", err)
	}
	return major, nil
}
