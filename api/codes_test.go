package api

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
)

// TestPathsFromTheField follows a link in the ways in which it was pasted.
func TestPathsFromTheField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLink(testLink{code: "spring", target: "https://example.com/sale"})
	file, err := os.Open("testdata/paths.tsv")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	rows := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		path, answer, found := strings.Cut(lines.Text(), "\t")
		if !found || strings.HasPrefix(path, "#") {
			continue
		}
		rows++
		want, err := strconv.Atoi(answer[:3])
		require.NoError(t, err)
		for _, path := range []string{path, "/r" + path} {
			a := b.raw("GET", path)
			if a.status != want || (a.header.Get("Location") == "https://example.com/sale") != (want == 302) {
				t.Errorf("GET %s: %d to %q, want %d", path, a.status, a.header.Get("Location"), want)
			}
		}
	}
	if rows < 10 {
		t.Fatalf("%d paths were read", rows)
	}
}

// These are codes of other shorteners, as an import brings them. Each leads to its own
// link, even if one code is another one with something glued to it.
func TestCodesOfAllKinds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	codes := []string{
		"v1.2", "team/walks", "T+B", "구글", "🚀", "jobs", "help", "~a", "café", "❤️", "$5", "@ann", "a!b", "x/users",
		"spring", "spring.", "spring/", "spring/more", "wow!", "Spring", "users", "users/5", "docs", "r", strings.Repeat("é", 127),
	}
	target := func(code string) string {
		return "https://example.com/" + strconv.Itoa(len(code)) + url.QueryEscape(code)
	}
	for _, code := range codes {
		if links.CheckImportedCode(code) == nil {
			b.insertLink(testLink{code: code, target: target(code)})
		}
	}
	want := func(path, code string) {
		t.Helper()
		if a := b.raw("GET", path); a.status != 302 || a.header.Get("Location") != target(code) {
			t.Errorf("GET %s: %d to %q, want the link %q", path, a.status, a.header.Get("Location"), code)
		}
	}
	for _, code := range codes {
		if links.CheckImportedCode(code) != nil {
			continue
		}
		want(links.CodePath(code), code)
		want("/r/"+code, code)
		if links.TrimCode(code) == code {
			want(links.CodePath(code)+".%E2%80%9D%20", code)
		}
	}
	want("/caf%65%CC%81", "café")
	want("/team%2Fwalks", "team/walks")
	want("/spring/", "spring")
	want("/spring).", "spring")
	want("/r/users).", "users")
	for _, path := range []string{"/users/5", "/docs/x", "/users.", "/r"} {
		if a := b.raw("GET", path); a.status != 401 && a.status != 404 {
			t.Errorf("GET %s: %d, a link stands before a route", path, a.status)
		}
	}
}

// Parameters that a mailer appended with an ampersand become part of the visitor's
// query, whatever else is there.
func TestGluedQuery(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLink(testLink{code: "to", target: "https://example.com/?own=1", forward: true})
	b.insertLink(testLink{code: "as-it-is", target: "https://example.com/"})
	for path, want := range map[string]string{
		"/to":                   "https://example.com/?own=1",
		"/to&utm=mail":          "https://example.com/?own=1&utm=mail",
		"/to&amp;utm=mail":      "https://example.com/?own=1&utm=mail",
		"/to/&utm=a%26b&c=d":    "https://example.com/?own=1&utm=a%26b&c=d",
		"/r/to%26utm%3Dmail":    "https://example.com/?own=1&utm=mail",
		"/to%3Futm=a%20b":       "https://example.com/?own=1&utm=a%20b",
		"/to&utm=mail?more=1":   "https://example.com/?own=1&utm=mail&more=1",
		"/as-it-is&utm=mail":    "https://example.com/",
		"/as-it-is.&utm=mail?x": "https://example.com/",
	} {
		if a := b.raw("GET", path); a.status != 302 || a.header.Get("Location") != want {
			t.Errorf("GET %s: %d to %q, want %q", path, a.status, a.header.Get("Location"), want)
		}
	}
}

func TestCodesByHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	for code, want := range map[string][2]string{ // the code as it is stored, and the path of the short URL
		"v1.2":       {"v1.2", "/v1.2"},
		"team/walks": {"team/walks", "/team/walks"},
		"구글":         {"구글", "/%EA%B5%AC%EA%B8%80"},
		"cafe\u0301": {"café", "/caf%C3%A9"},
		"🚀":          {"🚀", "/%F0%9F%9A%80"},
		"jobs":       {"jobs", "/jobs"},
		"status":     {"status", "/status"},
		"Users":      {"Users", "/Users"},
	} {
		link := b.newLink(ann, "https://example.com/"+url.QueryEscape(code), object{"short_code": code})
		if link.body["short_code"] != want[0] || link.body["short_url"] != "https://sign.example"+want[1] {
			t.Errorf("%q became %v under %v, want %q", code, link.body["short_code"], link.body["short_url"], want)
		}
		if a := b.raw("GET", want[1]); a.status != 302 {
			t.Errorf("GET %s: %d", want[1], a.status)
		}
	}
	b.want(409, RoleEditor, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com/", "short_code": "café"})
	for _, code := range []string{"users", "users/5", "r", "api", "spring.", "wow!", "a//b", "/a", "a/../b", "a b", "a?b", "\u200ba"} {
		a := b.want(400, RoleEditor, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com/", "short_code": code})
		if a.fields()["short_code"] == "" {
			t.Errorf("%q: %s", code, a.raw)
		}
	}
}

// A link may have come from a file with a code that nobody may give by hand. It can be
// changed by sending all its fields back.
func TestUpdateKeepsAnImportedCode(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, code := range []string{"users", "spring."} {
		id, _ := b.insertLink(testLink{code: code, target: "https://example.com/"})
		path := fmt.Sprintf("/urls/%d", id)
		a := b.want(200, RoleEditor, "PUT", path, object{"short_code": code, "title": "Kept"})
		if a.body["short_code"] != code || a.body["title"] != "Kept" {
			t.Errorf("%q: %s", code, a.raw)
		}
		for _, other := range []string{"docs", "summer!"} {
			a := b.want(400, RoleEditor, "PUT", path, object{"short_code": other})
			if a.fields()["short_code"] == "" {
				t.Errorf("%q: %s", other, a.raw)
			}
		}
	}
	if a := b.want(200, RoleReader, "GET", "/urls", nil); !strings.Contains(string(a.raw), `"https://sign.example/r/users"`) {
		t.Errorf("the short URL of a reserved code is not under /r/: %s", a.raw)
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, code := range []string{"spring", "Team/Walks", "twice", "TWICE", "users", "구글A", "<b>&'"} {
		b.insertLink(testLink{code: code, target: "https://example.com/"})
	}
	b.insertLink(testLink{code: "off", target: "https://example.com/", inactive: true})
	b.insertLink(testLink{code: "over", target: "https://example.com/", expires: "2020-01-01T00:00:00Z"})
	for path, near := range map[string]string{
		"/SPRING": "/spring", "/r/Spring": "/spring", "/SPRING.": "/spring", "/SPRING&a=b": "/spring", "/SPRING/": "/spring",
		"/team/walks": "/Team/Walks", "/Users": "/r/users", "/%EA%B5%AC%EA%B8%80a": "/%EA%B5%AC%EA%B8%80A",
		"/Twice": "", "/OFF": "", "/OVER": "", "/springs": "", "/spring_": "", "/%00": "",
	} {
		a := b.raw("GET", path)
		hint, _ := a.body["hint"].(string)
		if a.status != 404 || near == "" && hint != "" || near != "" && !strings.HasSuffix(hint, " https://sign.example"+near) {
			t.Errorf("GET %s: %d with the hint %q, want one of %q", path, a.status, hint, near)
		}
		page := b.do(0, "GET", path, nil, "Accept", htmlAccept)
		if got := strings.Contains(string(page.raw), `<a href="`+near+`">`); got != (near != "") || page.status != 404 {
			t.Errorf("GET %s: a browser gets %d %s", path, page.status, page.raw)
		}
	}
	// One search is allowed at a time, and none for a while after the database failed
	// to answer.
	b.api.hints.query <- struct{}{}
	if a := b.raw("GET", "/SPRING"); a.body["hint"] != nil {
		t.Errorf("a hint without a place: %s", a.raw)
	}
	<-b.api.hints.query
	if b.api.inAnotherCase(b.api.Cache.Domain(""), "SPRING") != "spring" {
		t.Error("no hint with a place")
	}
	b.pool.Close()
	if code := b.api.inAnotherCase(b.api.Cache.Domain(""), "SPRING"); code != "" || b.api.hints.paused.Load() == 0 {
		t.Errorf("without a database: %q, paused until %d", code, b.api.hints.paused.Load())
	}
}

func TestPathsOfRoutesAreNotLookedUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.pool.Close()
	for _, path := range []string{"/users/5/6", "/docs/none", "/health/x", "/api", "/live/1", "/r/", "/robots.txt/", "/%2575", "/spring%00"} {
		if a := b.raw("GET", path); a.status != 404 && a.status != 401 {
			t.Errorf("GET %s: %d %s", path, a.status, a.raw)
		}
	}
	b.want(503, 0, "GET", "/spring", nil)
	for _, path := range []string{"/spring", "/team/walks", "/r/users", "/spring.", "/%00"} {
		if a := b.want(405, 0, "POST", path, nil); a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: Allow is %q", path, a.header.Get("Allow"))
		}
	}
	b.want(404, 0, "POST", "/users/5/6", nil)
	if a := b.want(405, 0, "GET", "/tokens/5", nil); a.header.Get("Allow") != "DELETE" {
		t.Errorf("GET /tokens/5: Allow is %q", a.header.Get("Allow"))
	}
}
