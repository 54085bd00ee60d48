package worker

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestFiguresOfTheDatabaseAreNotSummed reads every query in deploy/ with a figure that
// is the same on all workers. Each query must take the maximum of the figure.
func TestFiguresOfTheDatabaseAreNotSummed(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	described := make(chan *prometheus.Desc, 100)
	m := newMetrics(registry)
	for _, c := range []prometheus.Collector{
		m.server, m.queueJobs, m.queueOldest, m.queuePaused, m.batchesPending, m.clicksPending, m.oldestPending, m.batchesFailed,
		m.clicksFailed, m.partitions, m.monthsAhead, m.monthsRetired, m.rowsRetired, m.monthsDue, m.partsOpen, m.oldestPart,
		m.importsOpen, m.importsEnded, m.importRowsLeft, m.databaseBytes, m.tableBytes,
	} {
		c.Describe(described)
	}
	close(described)
	name := regexp.MustCompile(`fqName: "([a-z_]+)", help: "([^"]*)"`)
	var shared []string
	for d := range described {
		found := name.FindStringSubmatch(d.String())
		if found == nil || !strings.HasSuffix(found[2], ofDatabase) {
			t.Errorf("the help does not say that every worker tells the same: %s", d)
			continue
		}
		shared = append(shared, found[1])
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
	mentioned, maximum := `\b(`+strings.Join(shared, "|")+`)\b`, `max(?: by \([a-z, ]+\))? ?\((?:(?:rate|deriv)\()?`
	all, right := regexp.MustCompile(mentioned), regexp.MustCompile(maximum+mentioned)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
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
