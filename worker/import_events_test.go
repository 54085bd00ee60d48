package worker

import (
	"strings"
	"testing"
)

func TestReadClickFields(t *testing.T) {
	t.Parallel()
	none := clickFields{bot: unknownBot}
	tests := []struct {
		name, details string
		want          clickFields
		whole         bool
	}{
		{"nothing", "", none, false},
		{"an empty object", "{}", none, false},
		{
			"an export", `{"referrer":"news.example","browser":"Firefox","os":"Linux","device":"desktop","country":"DE","bot":true}`,
			clickFields{"news.example", "Firefox", "Linux", "desktop", "DE", 1},
			true,
		},
		{"an export of the unknown", `{"referrer":null,"browser":null,"os":null,"device":null,"country":null,"bot":null}`, none, true},
		{
			"more than an export", `{"referrer":null,"browser":null,"os":null,"device":null,"country":null,"bot":false,"campaign":"x"}`,
			clickFields{bot: 0},
			false,
		},
		{"less", `{"browser":"Safari"}`, clickFields{browser: "Safari", bot: unknownBot}, false},
		{"other types", `{"browser":7,"os":"","device":["x"],"bot":"yes","country":true}`, none, false},
		{"a URL", `{"referrer":"https://News.example/a","country":"FR"}`, clickFields{referrer: "news.example", country: "FR", bot: unknownBot}, false},
		{
			"another spelling of a host", `{"referrer":"München.example","browser":null,"os":null,"device":null,"country":null,"bot":false}`,
			clickFields{referrer: "xn--mnchen-3ya.example"},
			false,
		},
		{
			"an export of a host of one label", `{"referrer":"intranet","browser":null,"os":null,"device":null,"country":null,"bot":false}`,
			clickFields{referrer: "intranet"},
			true,
		},
		{"no referrer", `{"referrer":"null","bot":false}`, clickFields{}, false},
		{"too long", `{"referrer":"` + strings.Repeat("a", 254) + `","browser":"` + strings.Repeat("a", 254) + `"}`, none, false},
	}
	for _, tt := range tests {
		if got, whole := readClickFields([]byte(tt.details)); got != tt.want || whole != tt.whole {
			t.Errorf("%s: %+v, %v; want %+v, %v", tt.name, got, whole, tt.want, tt.whole)
		}
	}
}
