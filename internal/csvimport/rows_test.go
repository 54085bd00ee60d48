package csvimport

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/signpost/signpost/internal/links"
)

// one reads the only record of a file with these columns and fields.
func one(t *testing.T, kind Kind, columns, fields string) (Record, *Parser) {
	t.Helper()
	names := strings.Split(columns, ",")
	layout := Layout{Kind: kind, Format: FormatSignpost, Columns: names, Header: names}
	for record := range layout.Records([]byte(fields), 7) {
		return record, layout.Parser(testRules)
	}
	t.Fatalf("no record in %q", fields)
	return Record{}, nil
}

func ptr[T any](value T) *T { return &value }

func TestUser(t *testing.T) {
	t.Parallel()
	record, parser := one(t, KindUsers, "id,username,email,created_at", "5,'=Ann,ann@example.com,2025-01-02 03:04:05")
	user, reject := parser.User(record)
	want := User{
		Line: 7, ID: ptr(int64(5)), Username: "=Ann", Email: "ann@example.com",
		CreatedAt: ptr(time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)),
	}
	if reject != nil || !reflect.DeepEqual(user, want) {
		t.Errorf("user %+v, %+v, want %+v", user, reject, want)
	}
	parser.rules.KeepIDs = false
	if user, reject := parser.User(record); reject != nil || user.ID != nil {
		t.Errorf("user %+v, %+v with an id that is not to be kept", user, reject)
	}
}

func TestRowsWithoutOptions(t *testing.T) {
	t.Parallel()
	record, parser := one(t, KindUsers, "id,username,email,created_at", ",ann,ann@example.com,")
	if user, reject := parser.User(record); reject != nil || user.ID != nil || user.CreatedAt != nil {
		t.Errorf("user %+v, %+v", user, reject)
	}
	record, parser = one(t, KindLinks, "original_url", "https://example.com")
	if link, reject := parser.Link(record); reject != nil || !reflect.DeepEqual(link, Link{Line: 7, UserID: 3, OriginalURL: "https://example.com"}) {
		t.Errorf("link %+v, %+v", link, reject)
	}
	record, parser = one(t, KindEvents, "url_id,event_type,timestamp,details", "1, Clicked ,2025-01-02, ")
	want := Event{Line: 7, URLID: 1, Type: "clicked", At: time.Date(2025, 1, 2, 0, 0, 0, 0, time.UTC)}
	if event, reject := parser.Event(record); reject != nil || !reflect.DeepEqual(event, want) {
		t.Errorf("event %+v, %+v, want %+v", event, reject, want)
	}
}

func TestLink(t *testing.T) {
	t.Parallel()
	record, parser := one(t, KindLinks,
		"id,user_id,short_code,original_url,title,tags,is_active,expires_at,redirect_status,forward_query,imported_clicks,created_at,updated_at",
		`9,4,Ab-1,https://example.com,"Spring,`+"\n"+`sale","b, a,|b",no,2030-01-01,308,yes,12,2024-01-01,2024-01-02`)
	link, reject := parser.Link(record)
	day := func(year int, month time.Month, day int) *time.Time {
		return ptr(time.Date(year, month, day, 0, 0, 0, 0, time.UTC))
	}
	want := Link{
		Line: 7, ID: ptr(int64(9)), UserID: 4, NamesUser: true, ShortCode: "Ab-1", OriginalURL: "https://example.com",
		Title: ptr("Spring, sale"), Tags: []string{"b", "a"}, IsActive: ptr(false), ExpiresAt: day(2030, 1, 1),
		RedirectStatus: ptr(308), ForwardQuery: ptr(true), ImportedClicks: ptr(int64(12)),
		CreatedAt: day(2024, 1, 1), UpdatedAt: day(2024, 1, 2),
	}
	if reject != nil || !reflect.DeepEqual(link, want) {
		t.Errorf("link %+v, %+v, want %+v", link, reject, want)
	}
}

func TestTargetOfALink(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{
		" https://example.com/a ":                 "https://example.com/a",
		"\"\nhttps://example.com/a b|c\r\n\"":     "https://example.com/a b|c",
		"\u200bhttps://bücher.example/100%-x":     "https://bücher.example/100%-x",
		"https://example.com/?a[]=1&b=%2F":        "https://example.com/?a[]=1&b=%2F",
		"\"https://example.com/?q=\"\"z\"\"#\\\"": `https://example.com/?q="z"#\`,
	} {
		record, parser := one(t, KindLinks, "original_url,title", field+",")
		if link, reject := parser.Link(record); reject != nil || link.OriginalURL != want {
			t.Errorf("%q: %q, %+v, want %q", field, link.OriginalURL, reject, want)
		}
	}
}

func TestEvent(t *testing.T) {
	t.Parallel()
	record, parser := one(t, KindEvents, "id,url_id,user_id,event_type,timestamp,details",
		`1,2,3,updated,2026-03-31 23:59:59.999999,"{""field"":""title""}"`)
	event, reject := parser.Event(record)
	want := Event{
		Line: 7, SourceID: ptr(int64(1)), URLID: 2, UserID: ptr(int64(3)), Type: "updated",
		At: time.Date(2026, 3, 31, 23, 59, 59, 999999000, time.UTC), Details: []byte(`{"field":"title"}`),
	}
	if reject != nil || !reflect.DeepEqual(event, want) {
		t.Errorf("event %+v, %+v, want %+v", event, reject, want)
	}
}

func TestRejects(t *testing.T) {
	t.Parallel()
	const (
		userColumns  = "id,username,email,created_at"
		linkColumns  = "id,user_id,short_code,original_url,title,tags,is_active,expires_at,redirect_status,forward_query,imported_clicks,created_at,updated_at"
		eventColumns = "id,url_id,user_id,event_type,timestamp,details"
	)
	link := func(position int, value string) string {
		fields := []string{"1", "2", "abc", "https://example.com", "", "", "", "", "", "", "", "", ""}
		fields[position] = value
		return strings.Join(fields, ",")
	}
	tests := []struct {
		kind            Kind
		columns, fields string
		column, reason  string
		problem         ProblemKind
	}{
		{KindUsers, userColumns, "x,ann,ann@example.com,", "id", reasonID, ProblemID},
		{KindUsers, userColumns, "0,ann,ann@example.com,", "id", reasonID, ProblemID},
		{KindUsers, userColumns, "1,,ann@example.com,", "username", reasonEmpty, ProblemEmpty},
		{KindUsers, userColumns, "1,\" ann\",ann@example.com,", "username", "must be 1 to 64 printable characters without spaces around them", ProblemValue},
		{KindUsers, userColumns, "1,ann,,", "email", reasonEmpty, ProblemEmpty},
		{KindUsers, userColumns, "1,ann,ann,", "email", "must be an e-mail address of at most 254 bytes, such as ann@example.com", ProblemValue},
		{KindUsers, userColumns, "1,ann,ann@example.com,yesterday", "created_at", reasonTime, ProblemTime},
		{KindUsers, userColumns, "1,ann,ann@example.com,1969-12-31", "created_at", reasonTime, ProblemTime},
		{KindUsers, userColumns, "1,,ann,yesterday", "username", reasonEmpty, ProblemEmpty},
		{KindUsers, userColumns, "1,ann", "email", reasonEmpty, ProblemEmpty},
		{KindUsers, userColumns, "1,ann,ann@example.com,5/1/2024", "created_at", reasonDay, ProblemTime},
		{KindUsers, userColumns, "1,ann,ann@example.com,0000-00-01", "created_at", reasonTime, ProblemTime},
		{KindLinks, linkColumns, link(0, "-1"), "id", reasonID, ProblemID},
		{KindLinks, linkColumns, link(1, "nobody"), "user_id", reasonID, ProblemID},
		{KindLinks, linkColumns, link(2, "a b"), "short_code", links.ErrCode.Error(), ProblemCode},
		{KindLinks, linkColumns, link(2, "team//walks"), "short_code", links.ErrCode.Error(), ProblemCode},
		{KindLinks, linkColumns, link(2, "/abc"), "short_code", links.ErrCode.Error(), ProblemCode},
		{KindLinks, linkColumns, link(3, ""), "original_url", reasonEmpty, ProblemEmpty},
		{KindLinks, linkColumns, link(3, "example.com"), "original_url", "must start with http:// or https://, such as https://example.com", ProblemTarget},
		{KindLinks, linkColumns, link(3, "menu"), "original_url", "must start with http:// or https://", ProblemTarget},
		{KindLinks, linkColumns, link(3, "mailto:office@e.example"), "original_url", "must start with http:// or https://, since links lead to http and https only", ProblemTarget},
		{KindLinks, linkColumns, link(3, "https://sho.rt/abc"), "original_url", "must not be one of this service's own short links", ProblemOwnLink},
		{KindLinks, linkColumns, link(4, strings.Repeat("x", 256)), "title", "must be at most 255 characters without control characters, text direction ones included", ProblemValue},
		{KindLinks, linkColumns, link(4, "a\u202eb"), "title", "must be at most 255 characters without control characters, text direction ones included", ProblemValue},
		{KindLinks, linkColumns, link(5, "good|a\u2066b"), "tags", "must be tags of 1 to 50 characters without commas, pipes or control characters, text direction ones included", ProblemValue},
		{KindLinks, linkColumns, link(5, strings.Repeat("x", 51)), "tags", "must be tags of 1 to 50 characters without commas, pipes or control characters, text direction ones included", ProblemValue},
		{KindLinks, linkColumns, link(6, "maybe"), "is_active", reasonBool, ProblemValue},
		{KindLinks, linkColumns, link(7, "9999-12-31T23:59:59-01:00"), "expires_at", reasonTime, ProblemTime},
		{KindLinks, linkColumns, link(8, "303"), "redirect_status", "must be 301, 302, 307 or 308", ProblemValue},
		{KindLinks, linkColumns, link(8, "x"), "redirect_status", "must be 301, 302, 307 or 308", ProblemValue},
		{KindLinks, linkColumns, link(9, "?"), "forward_query", reasonBool, ProblemValue},
		{KindLinks, linkColumns, link(10, "-5"), "imported_clicks", reasonClicks, ProblemNumber},
		{KindLinks, linkColumns, link(10, "4503599627370497"), "imported_clicks", reasonClicks, ProblemNumber},
		{KindLinks, linkColumns, link(11, "?"), "created_at", reasonTime, ProblemTime},
		{KindLinks, linkColumns, link(12, "?"), "updated_at", reasonTime, ProblemTime},
		{KindEvents, eventColumns, "x,1,1,clicked,2025-01-01,", "id", reasonID, ProblemID},
		{KindEvents, eventColumns, "1,,1,clicked,2025-01-01,", "url_id", reasonEmpty, ProblemEmpty},
		{KindEvents, eventColumns, "1,1.5,1,clicked,2025-01-01,", "url_id", reasonID, ProblemID},
		{KindEvents, eventColumns, "1,1,x,clicked,2025-01-01,", "user_id", reasonID, ProblemID},
		{KindEvents, eventColumns, "1,1,1,seen,2025-01-01,", "event_type", "must be created, updated, deleted or clicked", ProblemValue},
		{KindEvents, eventColumns, "1,1,1,clicked,,", "timestamp", reasonEmpty, ProblemEmpty},
		{KindEvents, eventColumns, "1,1,1,clicked,noon,", "timestamp", reasonTime, ProblemTime},
		{KindEvents, eventColumns, "1,1,1,clicked,0000-00-00 00:00:00,", "timestamp", reasonEmpty, ProblemEmpty},
		{KindEvents, eventColumns, "1,1,1,clicked,05.01.2024 8:00,", "timestamp", reasonDay, ProblemTime},
		{KindEvents, eventColumns, "1,1,1,clicked,1999-12-31 23:59:59,", "timestamp", "must be from 2000-01-01 to before 2026-04-01", ProblemTime},
		{KindEvents, eventColumns, "1,1,1,clicked,2026-04-01,", "timestamp", "must be from 2000-01-01 to before 2026-04-01", ProblemTime},
		{KindEvents, eventColumns, "1,1,1,clicked,2025-01-01,[]", "details", "must be a JSON object", ProblemValue},
	}
	for _, test := range tests {
		record, parser := one(t, test.kind, test.columns, test.fields)
		reject := parser.judge(test.kind, record)
		want := Reject{Line: 7, Column: test.column, Kind: test.problem, Reason: test.reason, Raw: test.fields}
		if reject == nil || *reject != want {
			t.Errorf("%s %q:\n got %+v\nwant %+v", test.kind, test.fields, reject, want)
		}
	}
}

// TestKindsOfRejects has rows whose fault is one of their form, or whose reason is long.
func TestKindsOfRejects(t *testing.T) {
	t.Parallel()
	const (
		users = "id,username,email,created_at"
		urls  = "user_id,original_url,short_code,title,is_active,imported_clicks"
	)
	for _, tt := range []struct {
		kind            Kind
		columns, fields string
		want            ProblemKind
	}{
		{KindUsers, users, "1,ann,ann@example.com,,more", ProblemCells},
		{KindUsers, users, "1,\"ann\"x,ann@example.com,", ProblemQuotes},
		{KindUsers, users, "1,\"ann,ann@example.com,", ProblemQuotes},
		{KindUsers, users, "1,ann\x00,ann@example.com,", ProblemValue},
		{KindUsers, users, "1,ann\xff,ann@example.com,", ProblemEncoding},
		{KindUsers, users, "1,änn\xff,ann@example.com,", ProblemBytes},
		{KindUsers, users, "1," + strings.Repeat("x", DefaultMaxRecord) + ",ann@example.com,", ProblemLength},
		{KindLinks, urls, ",ftp://example.com,,,,", ProblemTarget},
		{KindLinks, urls, ",https://example.com/" + strings.Repeat("x", links.MaxTarget) + ",,,,", ProblemLength},
	} {
		record, parser := one(t, tt.kind, tt.columns, tt.fields)
		if reject := parser.judge(tt.kind, record); reject == nil || reject.Kind != tt.want {
			t.Errorf("%s %.80q: %.300v, want the kind %s", tt.kind, tt.fields, reject, tt.want)
		}
	}
}

func TestLinkNeedsAnOwner(t *testing.T) {
	t.Parallel()
	record, parser := one(t, KindLinks, "original_url", "https://example.com")
	parser.rules.UserID = 0
	if _, reject := parser.Link(record); reject == nil || reject.Column != "user_id" || reject.Reason != reasonEmpty {
		t.Errorf("link of nobody: %+v", reject)
	}
}

func TestYearOfEvents(t *testing.T) {
	t.Parallel()
	layout := Layout{Kind: KindEvents, Columns: []string{"timestamp"}}
	for now, want := range map[string]string{"2025-11-30": "2026-01-01", "2025-12-31": "2026-02-01", "2024-01-31": "2024-03-01"} {
		at, _ := parseTime(now, time.UTC)
		if got := layout.Parser(Rules{Now: at}).latest.Format(time.DateOnly); got != want {
			t.Errorf("on %s events may be from before %s, want %s", now, got, want)
		}
	}
}

func TestDetails(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for _, details := range []string{
		`{}`, ` {"a":[1,-2.5e10,true,false,null,"x\"\\\n\u0001é😀 e9999"]} `, `{"a":"\ud83d\ude00"}`, nested(maxDepth), `{"a":1e999}`, `{"a":1E-0998}`, `{"a":-0.0}`, `{"a":[` + strings.Repeat("1,", 10_900) + `0]}`,
		"{" + strings.Repeat(" ", 2*maxDetails) + "}",
	} {
		if reason := checkDetails(details); reason != "" {
			t.Errorf("checkDetails(%q) = %q", details, reason)
		}
	}
	for _, details := range []string{
		``, `[]`, `"x"`, `1`, `null`, `{`, `{}x`, `{"a"}`, `{'a':1}`, `{"a":"\u0000"}`, `{"\u0000":1}`, `{"a":"\\\u0000"}`,
		`{"a":"\ud83d"}`, `{"a":"\ude00\ud83d"}`, `{"a":"\ud83dx\ude00"}`, `{"a":"\ud83d\ud83d"}`,
		nested(maxDepth + 1), `{"a":1e1000}`, `{"a":-1e-998}`, `{"a":0.` + strings.Repeat("1", 999) + `}`, `{"a":` + strings.Repeat("1", 1001) + `}`,
		`{"a":[` + strings.Repeat("1e99,", maxDetails/100) + `0]}`, `{"a":[` + strings.Repeat("1,", maxDetails/3) + `0]}`, `{"a":1e-99999999999999999999}`, `{"a":"` + strings.Repeat("x", maxDetails) + `"}`,
	} {
		if reason := checkDetails(details); reason == "" {
			t.Errorf("checkDetails(%.40q) accepts", details)
		}
	}
}

func TestNeutralize(t *testing.T) {
	t.Parallel()
	for cell, want := range map[string]string{
		"": "", "a": "a", "a=1": "a=1", "'": "'", "'a": "'a", "''": "''",
		"=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\tx": "'\tx", "\rx": "'\rx",
		"\nx": "'\nx", "\n=x": "'\n=x", "＝1": "'＝1", "＋1": "'＋1", "－1": "'－1", "＠x": "'＠x", "'＝1": "''＝1", "a＝1": "a＝1",
		"\xff=1": "\xff=1", "\xef\xbc": "\xef\xbc",
		"'=1": "''=1", "''-": "'''-",
	} {
		got := Neutralize(cell)
		if got != want {
			t.Errorf("Neutralize(%q) = %q, want %q", cell, got, want)
		}
		if back := Restore(got); back != cell {
			t.Errorf("Restore(%q) = %q, want %q", got, back, cell)
		}
	}
}

func FuzzNeutralize(f *testing.F) {
	f.Add("=1")
	f.Add("''+")
	f.Add("'＝\n＠")
	f.Fuzz(func(t *testing.T, cell string) {
		if got := Restore(Neutralize(cell)); got != cell {
			t.Fatalf("%q comes back as %q", cell, got)
		}
		if runs(Neutralize(cell)) {
			t.Fatalf("%q still runs", cell)
		}
	})
}

func ExampleLayout_Records() {
	layout := Layout{Kind: KindUsers, Delimiter: ",", Columns: []string{"username", "email"}}
	chunk := []byte("ann,ann@example.com\nbob,bob@example.com,bobby\n")
	for record := range layout.Records(chunk, 2) {
		user, reject := layout.Parser(Rules{}).User(record)
		if reject != nil {
			fmt.Println(reject.Line, reject.Reason)
			continue
		}
		fmt.Println(user.Line, user.Username)
	}
	// Output:
	// 2 ann
	// 3 has text behind its last column: it has 3 fields, 2 are expected, and field 3 is "bobby"
}
