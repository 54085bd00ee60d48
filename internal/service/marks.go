package service

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/queries"
)

// MaxMarks is how many marks there may be. There is a limit because every worker
// compares each visit with all of them.
const MaxMarks = 500

// Mark says that visits from a network, or with a User-Agent that fits a pattern, are of
// a kind, whatever the rules say. Workers follow it within seconds.
type Mark struct {
	ID        int64     `json:"id" example:"3"`
	Network   *string   `json:"network" example:"192.0.2.0/24" doc:"The network whose visits are marked."`
	UserAgent *string   `json:"user_agent" example:"AcmeWatch/*" doc:"The pattern of the User-Agent whose visits are marked."`
	Kind      string    `json:"kind" enum:"person,bot,preview,monitor,tool" example:"monitor"`
	CreatedAt time.Time `json:"created_at"`
}

// Path is the path of the mark in the API.
func (m Mark) Path() string { return "/marks/" + strconv.FormatInt(m.ID, 10) }

func viewMark(m queries.Mark) Mark {
	out := Mark{ID: m.ID, UserAgent: m.UserAgent, Kind: m.Kind, CreatedAt: m.CreatedAt.UTC()}
	if m.Network != nil {
		out.Network = new(m.Network.String())
	}
	return out
}

// MarkFields describe a mark to be made.
type MarkFields struct {
	Network, UserAgent, Kind Optional[string]
}

// Check returns the faults of the fields.
func (m MarkFields) Check() Faults {
	var f Faults
	Check(&f, "network", m.Network, "a string", true, func(text string) error {
		_, err := readNetwork(text)
		return err
	})
	Check(&f, "user_agent", m.UserAgent, "a string", true, checkPattern)
	Check(&f, "kind", m.Kind, "a string", false, checkMarkKind)
	network, agent := m.Network.Sent && !m.Network.Null, m.UserAgent.Sent && !m.UserAgent.Null
	switch {
	case network && agent:
		f.Add("user_agent", "must not be given together with network: make two marks")
	case !network && !agent:
		f.Add("network", "is required, or user_agent")
	}
	return f
}

var (
	errNetwork  = errors.New("must be an address or a network such as 192.0.2.0/24 or 2001:db8::/32")
	errPattern  = errors.New("must be 1 to " + strconv.Itoa(clicks.MaxUserAgent) + " bytes of printable characters, not only * (which stands for any text)")
	errMarkKind = errors.New("must be person, bot, preview, monitor or tool")
)

// readNetwork reads a network, or an address, which is a network of its own.
func readNetwork(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil || network.Addr().Is4In6() {
		return netip.Prefix{}, errNetwork
	}
	return network.Masked(), nil
}

func checkPattern(text string) error {
	if strings.Trim(text, "* ") == "" || len(text) > clicks.MaxUserAgent || !utf8.ValidString(text) {
		return errPattern
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return errPattern
	}
	return nil
}

// checkMarkKind refuses kinds that are told by other headers of a visit.
func checkMarkKind(text string) error {
	kind := visits.Kind(text)
	if !slices.Contains(visits.Kinds(), kind) || kind == visits.Prefetch || kind == visits.Empty {
		return errMarkKind
	}
	return nil
}

// ListMarks returns a page of the marks, in the order of their ids.
func (s *Service) ListMarks(ctx context.Context, actor Actor, p Page) ([]Mark, error) {
	if err := actor.Require(ManagesMarks); err != nil {
		return nil, err
	}
	rows, err := s.lists().ListMarks(ctx, p.After, p.Offset, p.Limit)
	return views(rows, viewMark), err
}

// CreateMark makes a mark of a network or a pattern.
func (s *Service) CreateMark(ctx context.Context, actor Actor, in MarkFields) (mark Mark, err error) {
	if err := actor.Require(ManagesMarks); err != nil {
		return Mark{}, err
	}
	in.Kind.Sent = true // the check treats an absent field like an empty one
	if err := in.Check().Err(); err != nil {
		return Mark{}, err
	}
	p := queries.CreateMarkParams{Kind: in.Kind.Value, Most: MaxMarks}
	if in.Network.Value != "" {
		network, _ := readNetwork(in.Network.Value)
		p.Network = &network
	} else {
		p.UserAgent = &in.UserAgent.Value
	}
	err = s.inTx(ctx, func(q *queries.Queries) error {
		row, err := q.CreateMark(ctx, p)
		if errors.Is(err, pgx.ErrNoRows) {
			return Conflict("there are " + strconv.Itoa(MaxMarks) + " marks, and more are not possible")
		}
		if err != nil {
			return err
		}
		mark = viewMark(row)
		return recordMark(ctx, q, actor, "created", mark)
	})
	return mark, err
}

// DeleteMark removes a mark. Visits that were judged by it stay as they are.
func (s *Service) DeleteMark(ctx context.Context, actor Actor, id int64) error {
	if err := actor.Require(ManagesMarks); err != nil {
		return err
	}
	err := s.inTx(ctx, func(q *queries.Queries) error {
		row, err := q.DeleteMark(ctx, id)
		if err != nil {
			return err
		}
		return recordMark(ctx, q, actor, "deleted", viewMark(row))
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return NotFound("mark")
	}
	return err
}

// recordMark writes the event of a mark that was made or removed, in the transaction of
// q.
func recordMark(ctx context.Context, q *queries.Queries, actor Actor, event string, m Mark) error {
	details := changeDetails{Entity: "mark", Kind: m.Kind}
	if m.Network != nil {
		details.Network = *m.Network
	}
	if m.UserAgent != nil {
		details.UserAgent = *m.UserAgent
	}
	return record(ctx, q, actor, event, nil, nil, details)
}
