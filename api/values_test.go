package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/service"
)

func TestTimesInQueries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := b.newLink(b.user("ann"), "https://example.com", nil)
	for text, status := range map[string]int{
		"2025-08-01T00:00:00+02:00":        200,
		"2025-08-01T00:00:00%2B02:00":      200,
		"2025-08-01T00:00:00.5+02:00":      200,
		"2025-08-01T00:00:00-02:00":        200,
		"2025-08-01t00:00:00z":             200,
		"2025-08-01t00:00:00.123456z":      200,
		"2025-08-01t00:00:00+02:00":        200,
		"2025-08-01T00:00:00Z":             200,
		"2025-08-01":                       400,
		"2025-08-01T00:00:00":              400,
		"2025-08-01T00:00:00++02:00":       400,
		"2025-08-01T00:00:00Z+":            400,
		"+02:00":                           400,
		"2025-08-01T00:00:00+0200":         400,
		"1969-12-31T23:00:00Z":             400,
		"2025-02-30T00:00:00Z":             400,
		url.QueryEscape("\xff") + "T00:00": 400,
	} {
		for _, name := range []string{"from", "to"} {
			a := b.want(status, RoleReader, "GET", "/events?"+name+"="+text, nil)
			if status == 400 && !strings.HasPrefix(a.fields()[name], "must be a time in RFC 3339") {
				t.Errorf("%s=%s: %s", name, text, a.raw)
			}
		}
	}
	// The blank stands for a plus sign and for nothing else. The zone of two hours
	// decides whether the link was made before that time.
	made := link.body["created_at"].(string)[:len("2006-01-02T15")]
	for text, count := range map[string]float64{made + ":00:00+02:00": 1, made + ":00:00-02:00": 0} {
		if a := b.want(200, RoleReader, "GET", "/events?event_type=created&url_id=1&from="+text, nil); a.body["count"] != count {
			t.Errorf("from=%s: %v events, want %v", text, a.body["count"], count)
		}
	}
}

// The specification also describes the form of times.
func TestTimesInTheSpecification(t *testing.T) {
	t.Parallel()
	spec := setup(t).want(200, 0, "GET", "/openapi.json", nil).raw
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name   string
				Schema map[string]any
			}
		}
		Components struct {
			Schemas map[string]struct{ Properties map[string]map[string]any }
		}
	}
	require.NoError(t, json.Unmarshal(spec, &doc))
	for _, schema := range []string{"URLCreate", "URLUpdate", "TokenCreate", "URL"} {
		if p := doc.Components.Schemas[schema].Properties["expires_at"]; p["format"] != "date-time" || !strings.Contains(fmt.Sprint(p["type"]), "null") {
			t.Errorf("expires_at of %s is %v", schema, p)
		}
	}
	for _, p := range doc.Paths["/events"]["get"].Parameters {
		if (p.Name == "from" || p.Name == "to") && p.Schema["format"] != "date-time" {
			t.Errorf("%s is %v", p.Name, p.Schema)
		}
	}
}

func TestTimesInBodies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	link := b.newLink(ann, "https://example.com", nil)
	path := "/urls/" + fmt.Sprint(link.id())
	for text, want := range map[string]any{
		"2090-01-01t02:00:00+02:00": "2090-01-01T00:00:00Z",
		"2090-01-01t00:00:00.25z":   "2090-01-01T00:00:00.25Z",
		"2090-01-01T00:00:00Z":      "2090-01-01T00:00:00Z",
	} {
		if a := b.want(200, RoleEditor, "PATCH", path, object{"expires_at": text}); a.body["expires_at"] != want {
			t.Errorf("changed to %s: %v", text, a.body["expires_at"])
		}
		a := b.want(201, RoleEditor, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com", "expires_at": text})
		if a.body["expires_at"] != want {
			t.Errorf("made with %s: %v", text, a.body["expires_at"])
		}
		if a := b.want(201, RoleAdmin, "POST", "/tokens", object{"name": "x", "role": "reader", "expires_at": text}); a.body["expires_at"] != want {
			t.Errorf("token with %s: %v", text, a.body["expires_at"])
		}
	}
	for _, wrong := range []any{"2090-01-01T00:00:00 02:00", "2090-01-01", "soon", "", 12, true, object{}, []string{"2090-01-01T00:00:00Z"}} {
		a := b.want(400, RoleEditor, "PATCH", path, object{"expires_at": wrong})
		if len(a.fields()) != 1 || a.fields()["expires_at"] != service.ErrTime.Error() {
			t.Errorf("%v: %s", wrong, a.raw)
		}
	}
	if a := b.want(200, RoleEditor, "PATCH", path, object{"expires_at": nil}); a.body["expires_at"] != nil {
		t.Errorf("null: %v", a.body["expires_at"])
	}
}
