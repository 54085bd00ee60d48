package worker

import (
	"strings"
	"testing"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/visits"
)

func TestReadClickFields(t *testing.T) {
	t.Parallel()
	none := clickFields{kind: visits.Person}
	person := func(f clickFields) clickFields { f.kind = visits.Person; return f }
	const unknown = `"referrer":null,"browser":null,"os":null,"device":null,"country":null`
	tests := []struct {
		name, details string
		want          clickFields
		whole         bool
	}{
		{"nothing", "", none, false},
		{"an empty object", "{}", none, false},
		{
			"an export", `{"referrer":"news.example","browser":"WhatsApp","os":"Linux","device":"bot","country":"DE","bot":true,"kind":"preview","trigger":"qr"}`,
			clickFields{"news.example", "WhatsApp", "Linux", "bot", "DE", visits.Preview, clicks.TriggerQR},
			true,
		},
		{"an export of the unknown", "{" + unknown + `,"bot":false,"kind":"person","trigger":"link"}`, none, true},
		{
			"an export of an earlier release", `{"referrer":"news.example","browser":"Firefox","os":"Linux","device":"desktop","country":"DE","bot":true}`,
			clickFields{"news.example", "Firefox", "Linux", "desktop", "DE", visits.Bot, clicks.TriggerLink},
			true,
		},
		{"an export of the unknown of an earlier release", "{" + unknown + `,"bot":null}`, none, true},
		{"a kind alone", `{"kind":"monitor"}`, clickFields{kind: visits.Monitor}, false},
		{"a kind without bot", "{" + unknown + `,"kind":"tool","trigger":"link"}`, clickFields{kind: visits.Tool}, false},
		{"a kind that says more than bot", "{" + unknown + `,"bot":false,"kind":"tool","trigger":"link"}`, clickFields{kind: visits.Tool}, false},
		{"a bot that is a person", "{" + unknown + `,"bot":true,"kind":"person"}`, none, false},
		{"an unknown kind", "{" + unknown + `,"bot":true,"kind":"alien"}`, clickFields{kind: visits.Bot}, false},
		{"no kind", "{" + unknown + `,"bot":true,"kind":null}`, clickFields{kind: visits.Bot}, false},
		{"an unknown trigger", "{" + unknown + `,"bot":false,"trigger":"nfc"}`, none, false},
		{"more than an export", "{" + unknown + `,"bot":false,"campaign":"x"}`, none, false},
		{"less", `{"browser":"Safari"}`, person(clickFields{browser: "Safari"}), false},
		{"other types", `{"browser":7,"os":"","device":["x"],"bot":"yes","country":true,"kind":1,"trigger":[]}`, none, false},
		{"a URL", `{"referrer":"https://News.example/a","country":"FR"}`, person(clickFields{referrer: "news.example", country: "FR"}), false},
		{
			"another spelling of a host", `{"referrer":"München.example","browser":null,"os":null,"device":null,"country":null,"bot":false}`,
			person(clickFields{referrer: "xn--mnchen-3ya.example"}),
			false,
		},
		{
			"an export of a host of one label", `{"referrer":"intranet","browser":null,"os":null,"device":null,"country":null,"bot":false}`,
			person(clickFields{referrer: "intranet"}),
			true,
		},
		{"no referrer", `{"referrer":"null","bot":false}`, none, false},
		{"too long", `{"referrer":"` + strings.Repeat("a", 254) + `","browser":"` + strings.Repeat("a", 254) + `"}`, none, false},
	}
	for _, tt := range tests {
		if got, whole := readClickFields([]byte(tt.details)); got != tt.want || whole != tt.whole {
			t.Errorf("%s: %+v, %v; want %+v, %v", tt.name, got, whole, tt.want, tt.whole)
		}
	}
}
