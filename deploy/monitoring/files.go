package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// files are the shipped files, read.
type files struct {
	prometheus map[string]any
	records    []rule
	alerts     []rule
	elsewhere  []rule // alerts on what only Kubernetes tells
	tests      []unitTest
	boards     []board
	datasource string
	runbooks   string
}

type rule struct {
	Record, Alert, Expr string
	Labels              map[string]string
	Annotations         map[string]string
}

// unitTest is one case of promtool test rules.
type unitTest struct {
	Cases []struct {
		Alertname string `yaml:"alertname"`
		Expected  []any  `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

// board is a dashboard of Grafana.
type board struct {
	file          string
	UID, Title    string
	Description   string
	Panels        []panel
	SchemaVersion int
	Tags          []string
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct {
		Expr       string
		Datasource source
	}
	Panels []panel
}

type source struct{ Type, UID string }

func readFiles() (*files, error) {
	f := &files{}
	var sources struct{ Datasources []struct{ UID string } }
	text, err := os.ReadFile("docs/runbooks.md")
	f.runbooks = string(text)
	rules, rulesErr := readRules("prometheus/rules/*.yml")
	elsewhere, elsewhereErr := readRules("prometheus/kubernetes/*.yml")
	f.elsewhere = elsewhere
	err = errors.Join(err, rulesErr, elsewhereErr,
		readYAML("deploy/prometheus/prometheus.yml", &f.prometheus),
		readYAML("deploy/grafana/provisioning/datasources/prometheus.yml", &sources))
	for _, r := range rules {
		if r.Alert != "" {
			f.alerts = append(f.alerts, r)
		} else {
			f.records = append(f.records, r)
		}
	}
	for _, path := range glob("prometheus/tests/*.yml") {
		var t struct{ Tests []unitTest }
		err = errors.Join(err, readYAML(path, &t))
		f.tests = append(f.tests, t.Tests...)
	}
	for _, path := range glob("grafana/dashboards/*.json") {
		b := board{file: filepath.Base(path)}
		text, readErr := os.ReadFile(path)
		err = errors.Join(err, readErr, json.Unmarshal(text, &b))
		f.boards = append(f.boards, b)
	}
	if len(sources.Datasources) == 1 {
		f.datasource = sources.Datasources[0].UID
	}
	return f, err
}

func readRules(pattern string) (list []rule, err error) {
	for _, path := range glob(pattern) {
		var rules struct{ Groups []struct{ Rules []rule } }
		err = errors.Join(err, readYAML(path, &rules))
		for _, g := range rules.Groups {
			list = append(list, g.Rules...)
		}
	}
	return list, err
}

// glob lists files below the folder deploy.
func glob(pattern string) []string {
	paths, _ := filepath.Glob(filepath.Join("deploy", pattern)) // the pattern is right
	return paths
}

func readYAML(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// check tells what is wrong with the files by themselves.
func (f *files) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(f.alerts) == 0 || len(f.records) == 0 || len(f.boards) == 0 {
		fault("there are %d alerts, %d recording rules and %d dashboards", len(f.alerts), len(f.records), len(f.boards))
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, t := range f.tests {
		for _, c := range t.Cases {
			if len(c.Expected) > 0 {
				fires[c.Alertname] = true
			} else {
				quiet[c.Alertname] = true
			}
		}
	}
	alerts := append(slices.Clone(f.alerts), f.elsewhere...)
	for _, a := range alerts {
		section := strings.ToLower(a.Alert)
		if !strings.HasSuffix(a.Annotations["runbook_url"], "/docs/runbooks.md#"+section) || !strings.Contains(f.runbooks, "\n## "+a.Alert+"\n") {
			fault("%s has no section in docs/runbooks.md, or its runbook_url leads elsewhere", a.Alert)
		}
		if !fires[a.Alert] || !quiet[a.Alert] {
			fault("%s needs a test that fires it and one that does not", a.Alert)
		}
		if s := a.Labels["severity"]; a.Annotations["summary"] == "" || s != "critical" && s != "warning" {
			fault("%s needs a summary, and a severity that is critical or warning", a.Alert)
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(f.runbooks, -1) {
		if !slices.ContainsFunc(alerts, func(a rule) bool { return a.Alert == line[1] }) {
			fault("docs/runbooks.md has a section on %s, which is no alert", line[1])
		}
	}
	uids := map[string]bool{}
	for _, b := range f.boards {
		if b.UID == "" || uids[b.UID] || b.Title == "" || b.Description == "" {
			fault("%s needs a title, a description and a uid of its own", b.file)
		}
		uids[b.UID] = true
		errs = append(errs, b.check(f.datasource))
	}
	return errors.Join(errs...)
}

func (b board) check(datasource string) error {
	var errs []error
	ids := map[int]bool{}
	for _, p := range b.Panels {
		what := fmt.Errorf("%s: panel %q", b.file, p.Title)
		switch {
		case p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "":
			errs = append(errs, fmt.Errorf("%w needs a title, a description and a unit", what))
		case ids[p.ID]:
			errs = append(errs, fmt.Errorf("%w has an id that another one has", what))
		case len(p.Targets) == 0 || len(p.Panels) > 0:
			errs = append(errs, fmt.Errorf("%w has no queries, or panels in it", what))
		case datasource == "" || p.Datasource.UID != datasource:
			errs = append(errs, fmt.Errorf("%w asks the data source %q, which is not provisioned", what, p.Datasource.UID))
		}
		ids[p.ID] = true
		for _, t := range p.Targets {
			if t.Datasource.UID != datasource {
				errs = append(errs, fmt.Errorf("%w: a query asks the data source %q", what, t.Datasource.UID))
			}
		}
	}
	return errors.Join(errs...)
}

// query is one that has to return something.
type query struct{ where, expr string }

// queries are all queries that have to return something.
func (f *files) queries() (list []query, err error) {
	for _, b := range f.boards {
		for _, p := range b.Panels {
			for _, t := range p.Targets {
				// Grafana makes it at least four times the scrape interval, which is 1 s here.
				expr := strings.ReplaceAll(t.Expr, "$__rate_interval", "10s")
				if strings.Contains(expr, "$") {
					err = errors.Join(err, fmt.Errorf("%s: %q has a variable that is not known here: %s", b.file, p.Title, t.Expr))
				}
				list = append(list, query{b.file + ": " + p.Title, expr})
			}
		}
	}
	for _, r := range f.records {
		list = append(list, query{r.Record, r.Expr}, query{r.Record, r.Record})
	}
	for _, a := range f.alerts {
		selectors, parseErr := selectors(a.Expr)
		if parseErr != nil || len(selectors) == 0 {
			err = errors.Join(err, fmt.Errorf("%s selects nothing: %w", a.Alert, parseErr))
		}
		for _, s := range selectors {
			list = append(list, query{a.Alert, s})
		}
	}
	return list, err
}

// selectors returns the series that an expression is about, each as a query.
func selectors(expr string) (list []string, err error) {
	tree, err := parser.ParseExpr(expr)
	if err != nil {
		return nil, err
	}
	parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			list = append(list, s.String())
		}
		return nil
	})
	return list, nil
}
