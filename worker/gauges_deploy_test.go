package worker

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/queries"
)

// TestFiguresOfTheDatabaseAreNotSummed reads every query in deploy/ with a figure that
// is the same on all workers. Each query must take the maximum of the figure.
func TestFiguresOfTheDatabaseAreNotSummed(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	newMetrics(registry).sampled.last.Store(&figures{tables: make([]queries.TableSizesRow, 1)})
	families, err := registry.Gather()
	require.NoError(t, err)
	var shared []string
	for _, family := range families {
		if strings.HasSuffix(family.GetHelp(), ofDatabase) {
			shared = append(shared, family.GetName())
		}
	}

	files := []string{"../deploy/kubernetes/base/autoscaling.yaml"}
	for _, pattern := range []string{"grafana/dashboards/*.json", "prometheus/rules/*.yml", "prometheus/kubernetes/*.yml"} {
		some, err := filepath.Glob("../deploy/" + pattern)
		if err != nil || len(some) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(some), err)
		}
		files = append(files, some...)
	}
	asked := 0
	mentioned, maximum := `\b(`+strings.Join(shared, "|")+`)\b`, `max(?: by \([a-z, ]+\))? ?\((?:(?:rate|deriv|max_over_time)\()?`
	all, right := regexp.MustCompile(mentioned), regexp.MustCompile(maximum+mentioned)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "(") { // the line is prose
				continue
			}
			n := len(all.FindAllString(line, -1))
			asked += n
			if n != len(right.FindAllString(line, -1)) {
				t.Errorf("%s does not take the maximum: %s", file, strings.TrimSpace(line))
			}
		}
	}
	if asked < 40 {
		t.Errorf("only %d queries were found", asked)
	}
}
