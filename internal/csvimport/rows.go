package csvimport

import (
	"cmp"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/links"
)

// Rules are the settings that the row rules depend on, apart from the file.
type Rules struct {
	// OwnHosts are the hosts this service answers on (see [links.CleanTarget]).
	OwnHosts links.Hosts
	// Now bounds the times of events: they must be before the end of the next month. It
	// has to be set when events are parsed.
	Now time.Time
	// Zone is the time zone of times that name none, see [Layout.Zone]; nil is UTC.
	Zone *time.Location
	// KeepIDs keeps the ids of users and links that the file brings.
	KeepIDs bool
	// UserID owns the links of a file that names no owner; 0 for nobody.
	UserID int64
	// Domain finds the id of the domain with a host; ok is false if there is no such
	// domain. A nil Domain finds none.
	Domain func(host string) (id int64, ok bool)
}

// A User is a row of a file of users. Pointers are nil where the file says
// nothing.
type User struct {
	Line      int64
	ID        *int64 // only with Rules.KeepIDs
	Username  string
	Email     string
	CreatedAt *time.Time
}

// A Link is a row of a file of links. Pointers are nil where the file says
// nothing.
type Link struct {
	Line           int64
	ID             *int64 // only with Rules.KeepIDs
	UserID         int64
	NamesUser      bool   // whether the row says UserID itself
	DomainID       int64  `json:",omitempty"` // 0 for the main one
	ShortCode      string // "" if one is to be generated
	OriginalURL    string
	Title          *string
	Tags           []string // nil if the file says nothing
	IsActive       *bool
	ExpiresAt      *time.Time
	RedirectStatus *int
	ForwardQuery   *bool
	ImportedClicks *int64
	CreatedAt      *time.Time
	UpdatedAt      *time.Time
}

// An Event is a row of a file of events.
type Event struct {
	Line     int64
	SourceID *int64 // the file's id
	URLID    int64  // 0 for a change of a user
	UserID   *int64 // there if URLID is not
	Type     string // created, updated, deleted or clicked
	At       time.Time
	Details  json.RawMessage // a JSON object fit for jsonb, or nil
}

// A Parser makes rows of the records of one layout. It may be used by several
// goroutines at once.
type Parser struct {
	rules   Rules
	restore bool
	code    codeColumns
	host    string // of links whose record names no domain; "" for the main one
	// The position of each column, -1 for none, in the order in which they are checked.
	id, username, email, createdAt                     int
	userID, originalURL, title, tags, isActive         int
	expiresAt, redirectStatus, forwardQuery, clicks    int
	updatedAt, urlID, eventType, timestamp, detailsCol int
	domain                                             int
	earliest, latest                                   time.Time // of events; latest is excluded
}

// Parser returns a parser of the layout's records under rules.
func (l Layout) Parser(rules Rules) *Parser {
	now := rules.Now.UTC()
	rules.Zone = cmp.Or(rules.Zone, time.UTC)
	return &Parser{
		rules: rules, restore: l.restores(), code: l.codeColumns(), host: l.Domain, domain: l.position(colDomain),
		id: l.position(colID), username: l.position(colUsername), email: l.position(colEmail),
		createdAt: l.position(colCreatedAt), userID: l.position(colUserID),
		originalURL: l.position(colOriginalURL), title: l.position(colTitle), tags: l.position(colTags),
		isActive: l.position(colIsActive), expiresAt: l.position(colExpiresAt),
		redirectStatus: l.position(colRedirectStatus), forwardQuery: l.position(colForwardQuery),
		clicks: l.position(colImportedClicks), updatedAt: l.position(colUpdatedAt),
		urlID: l.position(colURLID), eventType: l.position(colEventType),
		timestamp: l.position(colTimestamp), detailsCol: l.position(colDetails),
		earliest: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		latest:   time.Date(now.Year(), now.Month()+2, 1, 0, 0, 0, 0, time.UTC),
	}
}

const (
	reasonEmpty  = "must not be empty"
	reasonTime   = "must be a time such as 2006-01-02 15:04:05 or 2006-01-02T15:04:05Z, from 1970 to 9999"
	reasonDay    = "must not be a date such as 5/1/2024, whose day and month cannot be told apart: write 2024-05-01"
	reasonBool   = "must be true or false"
	reasonClicks = "must be a whole number, not negative"
	reasonDomain = "must be the host of a domain that is there already, or empty for the main one"
)

var reasonID = "must be a whole number from 1 to " + strconv.Itoa(MaxID)

// A row collects the first fault of a record.
type row struct {
	record *Record
	parser *Parser
	reject *Reject
}

func (r *row) fail(column string, kind ProblemKind, reason string) {
	if r.reject == nil {
		r.reject = r.record.reject(column, kind, reason)
	}
}

// refuseTarget fails the row for the reason that the rules of targets return.
func (r *row) refuseTarget(err error) {
	kind := ProblemTarget
	switch {
	case errors.Is(err, links.ErrTargetOwn):
		kind = ProblemOwnLink
	case errors.Is(err, links.ErrTargetLength):
		kind = ProblemLength
	case errors.Is(err, links.ErrTargetEmpty):
		kind = ProblemEmpty
	}
	r.fail(colOriginalURL, kind, err.Error())
}

// text returns the value at position as it was before an export neutralized it.
func (r *row) text(position int) string {
	value := r.record.field(position)
	if r.parser.restore {
		return Restore(value)
	}
	return value
}

// blank reports whether the record has no value at position.
func (r *row) blank(position int) bool { return trim(r.record.field(position)) == "" }

func (r *row) id(column string, position int) *int64 {
	if r.blank(position) {
		return nil
	}
	id, ok := parseID(r.record.field(position))
	if !ok {
		r.fail(column, ProblemID, reasonID)
	}
	return &id
}

func (r *row) requiredID(column string, position int) int64 {
	if r.blank(position) {
		r.fail(column, ProblemEmpty, reasonEmpty)
		return 0
	}
	id, ok := parseID(r.record.field(position))
	if !ok {
		r.fail(column, ProblemID, reasonID)
	}
	return id
}

func (r *row) time(column string, position int) *time.Time {
	value, there := r.timeText(position)
	if !there {
		return nil
	}
	t, reason := r.parser.time(value)
	if reason == "" && (t.Year() < 1970 || t.Year() > 9999) {
		reason = reasonTime
	}
	if reason != "" {
		r.fail(column, ProblemTime, reason)
	}
	return &t
}

// timeText is the time at position, if the record has one.
func (r *row) timeText(position int) (text string, there bool) {
	text = trim(r.record.field(position))
	return text, text != "" && !zeroDate(text)
}

// time parses a time, or returns the reason why it cannot.
func (p *Parser) time(text string) (t time.Time, reason string) {
	t, ok := parseTime(text, p.rules.Zone)
	if !ok {
		t, ok = sinceEpoch(text)
	}
	switch {
	case ok:
		return t, ""
	case dayMonth.MatchString(text):
		return t, reasonDay
	}
	return t, reasonTime
}

func (r *row) bool(column string, position int) *bool {
	if r.blank(position) {
		return nil
	}
	value, ok := parseBool(r.record.field(position))
	if !ok {
		r.fail(column, ProblemValue, reasonBool)
	}
	return &value
}

// checked returns a text that is required and has to pass check.
func (r *row) checked(column string, position int, check func(string) error) string {
	value := r.text(position)
	if value == "" {
		r.fail(column, ProblemEmpty, reasonEmpty)
	} else if err := check(value); err != nil {
		r.fail(column, ProblemValue, err.Error())
	}
	return value
}

// User makes a user of record. The Reject names the first column at fault.
func (p *Parser) User(record Record) (User, *Reject) {
	if record.Fault != nil {
		return User{}, record.Fault
	}
	r := row{record: &record, parser: p}
	user := User{Line: record.Line}
	if p.rules.KeepIDs {
		user.ID = r.id(colID, p.id)
	}
	user.Username = r.checked(colUsername, p.username, links.CheckUsername)
	user.Email = r.checked(colEmail, p.email, links.CheckEmail)
	user.CreatedAt = r.time(colCreatedAt, p.createdAt)
	return user, r.reject
}

// Link makes a link of record. The Reject names the first column at fault.
func (p *Parser) Link(record Record) (Link, *Reject) {
	if record.Fault != nil {
		return Link{}, record.Fault
	}
	r := row{record: &record, parser: p}
	link := Link{Line: record.Line, UserID: p.rules.UserID}
	if p.rules.KeepIDs {
		link.ID = r.id(colID, p.id)
	}
	if link.UserID == 0 || !r.blank(p.userID) {
		link.UserID, link.NamesUser = r.requiredID(colUserID, p.userID), true
	}
	var host string
	link.ShortCode, host = r.code()
	link.DomainID = r.domain(host)
	var err error
	if link.OriginalURL, err = links.CleanTarget(r.text(p.originalURL), p.rules.OwnHosts); err != nil {
		r.refuseTarget(err)
	}
	link.Title = r.title(p.title)
	link.Tags = r.tags(p.tags)
	link.IsActive = r.bool(colIsActive, p.isActive)
	link.ExpiresAt = r.time(colExpiresAt, p.expiresAt)
	link.RedirectStatus = r.redirectStatus(p.redirectStatus)
	link.ForwardQuery = r.bool(colForwardQuery, p.forwardQuery)
	link.ImportedClicks = r.clicks(p.clicks)
	link.CreatedAt = r.time(colCreatedAt, p.createdAt)
	link.UpdatedAt = r.time(colUpdatedAt, p.updatedAt)
	return link, r.reject
}

func (r *row) code() (code, host string) {
	code, host, err := r.parser.code.of(*r.record, r.parser.restore)
	if err == nil && code != "" {
		err = links.CheckImportedCode(code)
	}
	if err != nil {
		r.fail(colShortCode, ProblemCode, err.Error())
	}
	return code, host
}

// domain returns the id of the link's domain: the one that the record names, or else
// the one of its short URL if that host is known here, or else the one that the upload
// named.
func (r *row) domain(host string) int64 {
	if named := trim(r.text(r.parser.domain)); named != "" {
		return r.namedDomain(named)
	}
	if host != "" && r.parser.rules.Domain != nil {
		if id, ok := r.parser.rules.Domain(host); ok {
			return id
		}
	}
	if r.parser.host != "" {
		return r.namedDomain(r.parser.host)
	}
	return 0
}

func (r *row) namedDomain(host string) int64 {
	if r.parser.rules.Domain != nil {
		if id, ok := r.parser.rules.Domain(host); ok {
			return id
		}
	}
	r.fail(colDomain, ProblemValue, reasonDomain)
	return 0
}

func (r *row) title(position int) *string {
	if r.blank(position) {
		return nil
	}
	title, err := links.CleanTitle(r.text(position))
	if err != nil {
		r.fail(colTitle, ProblemValue, err.Error())
	}
	return &title
}

// tags splits at pipes and commas, neither of which a tag may hold.
func (r *row) tags(position int) []string {
	if r.blank(position) {
		return nil
	}
	text := r.text(position)
	if inner, ok := strings.CutPrefix(strings.TrimSpace(text), "["); ok {
		text = strings.ReplaceAll(strings.TrimSuffix(inner, "]"), `"`, "") // a list as JSON writes it
	}
	parts := strings.FieldsFunc(text, func(c rune) bool { return c == '|' || c == ',' })
	filled := parts[:0]
	for _, part := range parts {
		if strings.TrimSpace(part) != "" {
			filled = append(filled, part)
		}
	}
	tags, err := links.CleanTags(filled)
	if err != nil {
		r.fail(colTags, ProblemValue, err.Error())
	}
	return tags
}

func (r *row) redirectStatus(position int) *int {
	if r.blank(position) {
		return nil
	}
	n, _ := parseNumber(r.record.field(position)) // 0 is no status either
	status := int(n)
	if err := links.CheckRedirectStatus(status); err != nil {
		r.fail(colRedirectStatus, ProblemValue, err.Error())
	}
	return &status
}

func (r *row) clicks(position int) *int64 {
	if r.blank(position) {
		return nil
	}
	n, ok := parseNumber(r.record.field(position))
	if !ok || n > MaxID {
		r.fail(colImportedClicks, ProblemNumber, reasonClicks)
	}
	return &n
}

// Event makes an event of record. The Reject names the first column at fault.
func (p *Parser) Event(record Record) (Event, *Reject) {
	if record.Fault != nil {
		return Event{}, record.Fault
	}
	r := row{record: &record, parser: p}
	event := Event{Line: record.Line, SourceID: r.id(colID, p.id)}
	event.URLID = r.eventLink()
	event.UserID = r.id(colUserID, p.userID)
	event.Type = r.eventType(p.eventType)
	event.At = r.eventTime(p.timestamp)
	if details := r.text(p.detailsCol); trim(details) != "" {
		if reason := checkDetails(details); reason != "" {
			r.fail(colDetails, ProblemValue, reason)
		}
		event.Details = json.RawMessage(details)
	}
	return event, r.reject
}

// eventLink returns the link of an event; 0 for a change of a user, which has no link.
func (r *row) eventLink() int64 {
	p := r.parser
	if kind := trim(r.record.field(p.eventType)); r.blank(p.urlID) && !r.blank(p.userID) && !strings.EqualFold(kind, "clicked") {
		return 0
	}
	return r.requiredID(colURLID, p.urlID)
}

func (r *row) eventType(position int) string {
	switch kind := trim(r.record.field(position)); strings.ToLower(kind) {
	case "created":
		return "created"
	case "updated":
		return "updated"
	case "deleted":
		return "deleted"
	case "clicked":
		return "clicked"
	}
	r.fail(colEventType, ProblemValue, "must be created, updated, deleted or clicked")
	return ""
}

func (r *row) eventTime(position int) time.Time {
	value, there := r.timeText(position)
	if !there {
		r.fail(colTimestamp, ProblemEmpty, reasonEmpty)
		return time.Time{}
	}
	t, reason := r.parser.time(value)
	switch {
	case reason != "":
		r.fail(colTimestamp, ProblemTime, reason)
	case t.Before(r.parser.earliest) || !t.Before(r.parser.latest):
		r.fail(colTimestamp, ProblemTime, "must be from 2000-01-01 to before "+r.parser.latest.Format(time.DateOnly))
	}
	return t
}
