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
	rules            Rules
	restore          bool
	host             string         // of links whose record names no domain; "" for the main one
	at               map[string]int // positions of columns
	earliest, latest time.Time      // of events; latest is excluded
}

// Parser returns a parser of the layout's records under rules.
func (l Layout) Parser(rules Rules) *Parser {
	now := rules.Now.UTC()
	rules.Zone = cmp.Or(rules.Zone, time.UTC)
	if rules.Domain == nil {
		rules.Domain = func(string) (int64, bool) { return 0, false }
	}
	p := &Parser{
		rules: rules, restore: l.restores(), host: l.Domain, at: map[string]int{},
		earliest: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		latest:   time.Date(now.Year(), now.Month()+2, 1, 0, 0, 0, 0, time.UTC),
	}
	for i, name := range l.Columns {
		p.at[name] = i
	}
	return p
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

// cell returns the value in a column, "" if there is none.
func (r *row) cell(column string) string {
	position, ok := r.parser.at[column]
	if !ok || position >= len(r.record.Fields) {
		return ""
	}
	return r.record.Fields[position]
}

// text returns the value in a column as it was before an export neutralized it.
func (r *row) text(column string) string {
	if r.parser.restore {
		return Restore(r.cell(column))
	}
	return r.cell(column)
}

// blank reports whether the record has no value in a column.
func (r *row) blank(column string) bool { return trim(r.cell(column)) == "" }

func (r *row) id(column string) *int64 {
	if r.blank(column) {
		return nil
	}
	id, ok := parseID(r.cell(column))
	if !ok {
		r.fail(column, ProblemID, reasonID)
	}
	return &id
}

func (r *row) requiredID(column string) int64 {
	id := r.id(column)
	if id == nil {
		r.fail(column, ProblemEmpty, reasonEmpty)
		return 0
	}
	return *id
}

func (r *row) time(column string) *time.Time {
	value, there := r.timeText(column)
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

// timeText is the time in a column, if the record has one.
func (r *row) timeText(column string) (text string, there bool) {
	text = trim(r.cell(column))
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

func (r *row) bool(column string) *bool {
	if r.blank(column) {
		return nil
	}
	value, ok := parseBool(r.cell(column))
	if !ok {
		r.fail(column, ProblemValue, reasonBool)
	}
	return &value
}

// checked returns a text that is required and has to pass check.
func (r *row) checked(column string, check func(string) error) string {
	value := r.text(column)
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
		user.ID = r.id(colID)
	}
	user.Username = r.checked(colUsername, links.CheckUsername)
	user.Email = r.checked(colEmail, links.CheckEmail)
	user.CreatedAt = r.time(colCreatedAt)
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
		link.ID = r.id(colID)
	}
	if link.UserID == 0 || !r.blank(colUserID) {
		link.UserID, link.NamesUser = r.requiredID(colUserID), true
	}
	var host string
	link.ShortCode, host = r.code()
	link.DomainID = r.domain(host)
	var err error
	if link.OriginalURL, err = links.CleanTarget(r.text(colOriginalURL), p.rules.OwnHosts); err != nil {
		r.refuseTarget(err)
	}
	link.Title = r.title()
	link.Tags = r.tags()
	link.IsActive = r.bool(colIsActive)
	link.ExpiresAt = r.time(colExpiresAt)
	link.RedirectStatus = r.redirectStatus()
	link.ForwardQuery = r.bool(colForwardQuery)
	link.ImportedClicks = r.clicks()
	link.CreatedAt = r.time(colCreatedAt)
	link.UpdatedAt = r.time(colUpdatedAt)
	return link, r.reject
}

func (r *row) code() (code, host string) {
	code, host, err := r.givenCode()
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
	if named := trim(r.text(colDomain)); named != "" {
		return r.namedDomain(named)
	}
	if id, ok := r.parser.rules.Domain(host); host != "" && ok {
		return id
	}
	if r.parser.host != "" {
		return r.namedDomain(r.parser.host)
	}
	return 0
}

func (r *row) namedDomain(host string) int64 {
	id, ok := r.parser.rules.Domain(host)
	if !ok {
		r.fail(colDomain, ProblemValue, reasonDomain)
	}
	return id
}

func (r *row) title() *string {
	if r.blank(colTitle) {
		return nil
	}
	title, err := links.CleanTitle(r.text(colTitle))
	if err != nil {
		r.fail(colTitle, ProblemValue, err.Error())
	}
	return &title
}

// tags splits at pipes and commas, neither of which a tag may hold.
func (r *row) tags() []string {
	if r.blank(colTags) {
		return nil
	}
	text := r.text(colTags)
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

func (r *row) redirectStatus() *int {
	if r.blank(colRedirectStatus) {
		return nil
	}
	n, _ := parseNumber(r.cell(colRedirectStatus)) // 0 is no status either
	status := int(n)
	if err := links.CheckRedirectStatus(status); err != nil {
		r.fail(colRedirectStatus, ProblemValue, err.Error())
	}
	return &status
}

func (r *row) clicks() *int64 {
	if r.blank(colImportedClicks) {
		return nil
	}
	n, ok := parseNumber(r.cell(colImportedClicks))
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
	event := Event{Line: record.Line, SourceID: r.id(colID)}
	event.URLID = r.eventLink()
	event.UserID = r.id(colUserID)
	event.Type = r.eventType()
	event.At = r.eventTime()
	if details := r.text(colDetails); trim(details) != "" {
		if reason := checkDetails(details); reason != "" {
			r.fail(colDetails, ProblemValue, reason)
		}
		event.Details = json.RawMessage(details)
	}
	return event, r.reject
}

// eventLink returns the link of an event; 0 for a change of a user, which has no link.
func (r *row) eventLink() int64 {
	kind := trim(r.cell(colEventType))
	if r.blank(colURLID) && !r.blank(colUserID) && !strings.EqualFold(kind, "clicked") {
		return 0
	}
	return r.requiredID(colURLID)
}

func (r *row) eventType() string {
	switch kind := strings.ToLower(trim(r.cell(colEventType))); kind {
	case "created", "updated", "deleted", "clicked":
		return kind
	}
	r.fail(colEventType, ProblemValue, "must be created, updated, deleted or clicked")
	return ""
}

func (r *row) eventTime() time.Time {
	value, there := r.timeText(colTimestamp)
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
