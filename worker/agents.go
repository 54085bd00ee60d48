package worker

import (
	"fmt"
	"strings"

	"github.com/maypok86/otter/v2"
	"github.com/mileusna/useragent"

	"github.com/signpost/signpost/internal/clicks"
)

const (
	agentsCached  = 8192 // at most clicks.MaxUserAgent bytes each
	agentNameMax  = 64   // bytes; the names come from headers, which clients make up
	deviceBot     = "bot"
	deviceMobile  = "mobile"
	deviceTablet  = "tablet"
	deviceDesktop = "desktop"
)

// agent is the meaning of a User-Agent header. Empty fields are unknown. It is shared
// and never changed.
type agent struct {
	bot                 bool
	browser, os, device string
	// columns holds browser, os and device encoded for a binary COPY.
	columns []byte
}

// agents parses User-Agent headers and remembers the most frequent ones: parsing takes
// microseconds, and a batch holds few different headers. It is safe for concurrent use.
type agents struct {
	known *otter.Cache[string, *agent]
	parse func(header string) *agent
}

func newAgents() (*agents, error) {
	known, err := otter.New(&otter.Options[string, *agent]{MaximumSize: agentsCached})
	if err != nil {
		return nil, fmt.Errorf("set up user agent cache: %w", err)
	}
	return &agents{known: known, parse: parseAgent}, nil
}

// get returns the meaning of header. It does not keep header itself.
func (a *agents) get(header string) *agent {
	if known, ok := a.known.GetIfPresent(header); ok {
		return known
	}
	// The header shares the memory of its whole batch.
	header = strings.Clone(header)
	parsed := a.parse(header)
	a.known.Set(header, parsed)
	return parsed
}

func parseAgent(header string) *agent {
	a := readAgent(header)
	if a.bot {
		a.device = deviceBot
	}
	for _, name := range []string{a.browser, a.os, a.device} {
		a.columns = appendText(a.columns, name)
	}
	return &a
}

func readAgent(header string) agent {
	if header == "" {
		return agent{bot: true} // every browser sends one
	}
	lower := strings.ToLower(header)
	if name := toolOf(lower); name != "" {
		return agent{bot: true, browser: name}
	}
	ua := useragent.Parse(header)
	a := agent{bot: ua.Bot || isBot(lower), browser: bounded(ua.Name), os: bounded(ua.OS)}
	switch {
	case ua.Tablet:
		a.device = deviceTablet
	case ua.Mobile:
		a.device = deviceMobile
	case ua.Desktop:
		a.device = deviceDesktop
	}
	return a
}

func bounded(name string) string { return strings.TrimSpace(clicks.Clean(name, agentNameMax)) }
