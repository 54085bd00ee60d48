package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRunGivesTheCommandADatabase(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	code, err := run(t.Context(), []string{"SOME_URL", "sh", "-c", `echo "$SOME_URL"; exit 3`}, &out, &out)
	if err != nil || code != 3 {
		t.Fatalf("exit code %d, %v; want the command's 3", code, err)
	}
	if !strings.HasPrefix(out.String(), "postgres://") {
		t.Errorf("the command saw %q, want a database URL", out.String())
	}
}

func TestRunRefusesNoCommand(t *testing.T) {
	t.Parallel()
	if code, err := run(t.Context(), []string{"SOME_URL"}, nil, nil); err == nil || code == 0 {
		t.Errorf("exit code %d, %v; want a usage error", code, err)
	}
}
