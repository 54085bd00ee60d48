package web

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/signpost/signpost/internal/service"
)

// Cures name no parameters of the API on a page.
func TestCures(t *testing.T) {
	t.Parallel()
	for cureOfAPI, words := range map[string]string{
		"on_conflict=skip passes over rows that are there already":                                            "choose that such rows are passed over",
		"on_conflict=skip passes over rows that are there already, on_conflict=update updates what they name": "choose that such rows are passed over, or that they update what is there",
		"encoding=windows-1252 reads it":                                                                      "choose the encoding windows-1252",
		"encoding=… names its encoding, or save it as UTF-8":                                                  "choose its encoding, or save it as UTF-8",
		`escape=backslash reads a file that writes quotes as \"`:                                              "choose that quotes within quotes have a backslash",
		"user_id=… names the owner of links without one":                                                      "choose the owner of links that name nobody",
		"import the users first, or give the links to one with user_id=… and mapping=user_id:":                "import the users first, or choose the owner of links that name nobody and read user_id as nothing",
		`mapping="My ID:" leaves the ids of the file out`:                                                     "read My ID as nothing",
		"mapping=ID: leaves the ids of the file out":                                                          "read ID as nothing",
		"import the links first":                                                                              "import the links first",
	} {
		assert.Equal(t, words, cure(service.ImportProblem{Outcome: "rejected", Cure: &cureOfAPI}))
	}
	assert.Equal(t, "mend them one by one", cure(service.ImportProblem{Outcome: "rejected"}))
	assert.Equal(t, "nothing to do", cure(service.ImportProblem{Outcome: "imported"}))
}

// The tour goes on from the file that was imported last, and ends where somebody has files
// of their own.
func TestTour(t *testing.T) {
	t.Parallel()
	admin := &Request{Actor: service.Actor{Role: service.RoleAdmin}}
	made := func(kind, name string, dryRun bool) service.Import {
		return service.Import{Kind: kind, Filename: &name, State: "completed", DryRun: dryRun}
	}
	users, trial, links, events := made("users", "users.csv", false), made("users", "users.csv", true), made("urls", "urls.csv", false), made("events", "events.csv", false)
	for next, imports := range map[string][]service.Import{
		"users": {trial}, "urls": {trial, users}, "events": {users, links}, "": {users, links, events}, "none": {made("users", "mine.csv", false)},
	} {
		found := ""
		steps := tour(admin, imports)
		for _, step := range steps {
			if step.Next {
				found = step.Kind
			}
		}
		if next == "none" {
			next = ""
		}
		assert.Equal(t, next, found)
		assert.Equal(t, next == "", steps == nil)
	}
	assert.Len(t, tour(admin, nil), 3)
	assert.Nil(t, tour(&Request{Actor: service.Actor{Role: service.RoleEditor}}, nil))
}
