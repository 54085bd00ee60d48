package visits

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// RulesMark is stored in place of the version of the rules when an operator's mark of a
// network decided. The address is not stored, so nothing can decide again later.
const RulesMark int16 = 0

// Mark is an operator's decision about visits: those from a network, or those whose
// User-Agent fits a pattern, are of a kind. It has either a network or a pattern.
type Mark struct {
	Network netip.Prefix
	// Pattern is compared with the whole header, without regard to case. * stands for
	// any text.
	Pattern string
	Kind    Kind
}

// Marks are the marks of an installation. The zero value has none. It is never changed,
// and safe for concurrent use.
type Marks struct {
	networks map[netip.Prefix]Kind
	bits     []int // of the networks' lengths, longest first
	patterns []Mark
}

// NewMarks returns marks for use. Where several fit a visit, the longest network or
// pattern decides.
func NewMarks(marks []Mark) *Marks {
	m := &Marks{networks: map[netip.Prefix]Kind{}}
	for _, mark := range marks {
		if mark.Pattern != "" {
			mark.Pattern = strings.ToLower(mark.Pattern)
			m.patterns = append(m.patterns, mark)
			continue
		}
		network := mark.Network.Masked()
		m.networks[network] = mark.Kind
		if !slices.Contains(m.bits, network.Bits()) {
			m.bits = append(m.bits, network.Bits())
		}
	}
	slices.SortFunc(m.bits, func(a, b int) int { return cmp.Compare(b, a) })
	slices.SortStableFunc(m.patterns, func(a, b Mark) int { return cmp.Compare(len(b.Pattern), len(a.Pattern)) })
	return m
}

// Network returns the kind of visits from an address, and whether a network is marked
// that contains it.
func (m *Marks) Network(ip netip.Addr) (Kind, bool) {
	ip = ip.Unmap().WithZone("")
	for _, bits := range m.bits {
		prefix, err := ip.Prefix(bits)
		if err != nil {
			continue // longer than an IPv4 address, or there is no address
		}
		if kind, found := m.networks[prefix]; found {
			return kind, true
		}
	}
	return "", false
}

// ReadAgent applies the rules and the marked patterns to a User-Agent header.
func (m *Marks) ReadAgent(header string) Agent {
	if len(m.patterns) > 0 {
		lower := strings.ToLower(header)
		for _, mark := range m.patterns {
			if fits(lower, mark.Pattern) {
				return readAgent(header).as(mark.Kind)
			}
		}
	}
	return ReadAgent(header)
}

// fits reports whether a pattern fits the whole of s; * in it stands for any text.
func fits(s, pattern string) bool {
	first, rest, starred := strings.Cut(pattern, "*")
	if !starred {
		return s == pattern
	}
	s, found := strings.CutPrefix(s, first)
	if !found {
		return false
	}
	for {
		var part string
		part, rest, starred = strings.Cut(rest, "*")
		if !starred {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part) // the earliest leaves most for the rest
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
}

// Judge returns the kind of a visit and the version of the rules to store with it. A
// marked network decides before all else, then whether the browser loads ahead of a
// click, then the agent, which ReadAgent read.
func (m *Marks) Judge(ip netip.Addr, agent Kind, prefetch bool) (Kind, int16) {
	if kind, found := m.Network(ip); found {
		return kind, RulesMark
	}
	if prefetch {
		return Prefetch, Rules
	}
	return agent, Rules
}
