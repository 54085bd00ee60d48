package visits

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/mileusna/useragent"

	"github.com/signpost/signpost/internal/clicks"
)

const nameMax = 64 // bytes; the names come from headers, which clients make up

// Devices. An agent that is not a person's has the device "bot".
const (
	deviceBot     = "bot"
	deviceMobile  = "mobile"
	deviceTablet  = "tablet"
	deviceDesktop = "desktop"
)

// Agent is the meaning of a User-Agent header. Empty texts are unknown.
type Agent struct {
	Kind                Kind // never Prefetch
	Browser, OS, Device string
}

// ReadAgent applies the rules to a User-Agent header.
func ReadAgent(header string) Agent {
	a := readAgent(header)
	return a.as(a.Kind)
}

// as returns the agent of a visit of a kind.
func (a Agent) as(kind Kind) Agent {
	if a.Kind = kind; kind != Person {
		a.Device = deviceBot
	}
	return a
}

func readAgent(header string) Agent {
	if strings.TrimSpace(header) == "" {
		return Agent{Kind: Empty}
	}
	lower := strings.ToLower(header)
	named := withoutDevice(lower)
	if p, found := programOf(named); found {
		return Agent{Kind: p.kind, Browser: p.name}
	}
	ua := useragent.Parse(header)
	a := Agent{Kind: kindOfWords(lower, named), Browser: bounded(ua.Name), OS: bounded(ua.OS)}
	switch {
	case a.Kind == Person && ua.Bot:
		a.Kind = Bot
	case ua.Tablet:
		a.Device = deviceTablet
	case ua.Mobile:
		a.Device = deviceMobile
	case ua.Desktop:
		a.Device = deviceDesktop
	}
	return a
}

func bounded(name string) string { return strings.TrimSpace(clicks.Clean(name, nameMax)) }

// AgentID returns the id of a User-Agent header in user_agents: the first 8 bytes of its
// SHA-256.
func AgentID(header string) int64 {
	sum := sha256.Sum256([]byte(header))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// KindOfProgram returns the kind of the program that an event's browser is, and false if
// it is none that the rules name. Events of earlier releases have no header: the name
// and the rules are all that can tell which of the robots one was.
func KindOfProgram(browser string) (Kind, bool) {
	for _, of := range [][]program{programs, starts} {
		for _, p := range of {
			if p.name == browser {
				return p.kind, true
			}
		}
	}
	return "", false
}
