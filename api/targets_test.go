package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
)

// TestTargetsFromTheField makes a link to each of the targets that users of such
// services pasted, and follows it.
func TestTargetsFromTheField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	file, err := os.ReadFile("../internal/links/testdata/targets.tsv")
	require.NoError(t, err)
	followed := 0
	for line := range strings.Lines(string(file)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		var sent string
		if json.Unmarshal([]byte(cells[0]), &sent) != nil || strings.Contains(sent, "<PUBLIC_URL") {
			continue // described in words: TestLongTargets, TestOwnTargets
		}
		if cells[1] == "400" {
			a := b.want(400, RoleEditor, "POST", "/urls", object{"user_id": ann, "original_url": sent})
			if a.fields()["original_url"] == "" || len(a.fields()) != 1 {
				t.Errorf("%q: nothing is said about original_url, or more: %s", sent, a.raw)
			}
			continue
		}
		want := strings.TrimSuffix(cells[2], " (or with the host in lower case)")
		if strings.HasPrefix(want, "byte for byte") {
			want = sent
		}
		b.leads(ann, sent, want)
		followed++
	}
	if followed < 8 {
		t.Errorf("only %d targets were followed", followed)
	}
}

// leads makes a link, changes another one to the same target, and follows both.
func (b *bundle) leads(user int64, sent, want string) {
	b.t.Helper()
	made := b.newLink(user, sent, nil)
	changed := b.newLink(user, "https://example.com/before", nil)
	b.raw("GET", "/"+changed.body["short_code"].(string)) // cached
	a := b.want(200, RoleEditor, "PUT", fmt.Sprintf("/urls/%d", changed.id()), object{"original_url": sent})
	for _, link := range []answer{made, a} {
		if got := link.body["original_url"]; got != strings.Trim(sent, " \n") {
			b.t.Errorf("original_url of %q is %q", sent, got)
		}
		a := b.raw("GET", "/"+link.body["short_code"].(string))
		if got := a.header.Get("Location"); a.status != http.StatusFound || got != want {
			b.t.Errorf("%q: %d to %q, want %q", sent, a.status, got, want)
		}
	}
}

func TestOwnTargets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	link := fmt.Sprintf("/urls/%d", b.newLink(ann, "https://example.com/", nil).id())
	for _, target := range []string{
		"https://SIGN.example./x", "https://ｓｉｇｎ.example/r/x", "https://go.sign.example:8443/x", "https://müller.example/x",
		"https://XN--MLLER-KVA.example/%78",
	} {
		for method, path := range map[string]string{"POST": "/urls", "PATCH": link} {
			a := b.want(400, RoleEditor, method, path, object{"user_id": ann, "original_url": target})
			if got := a.fields()["original_url"]; got != links.ErrTargetOwn.Error() {
				t.Errorf("%s %q: %s", method, target, a.raw)
			}
		}
	}
	b.leads(ann, "https://sign.example/docs", "https://sign.example/docs")
	b.leads(ann, "https://go.sign.example/x", "https://go.sign.example/x") // another port
}

// TestTargetsOfOlderReleases: the database has targets as they were given, and some
// that would be refused now.
func TestTargetsOfOlderReleases(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for target, want := range map[string]string{
		"https://bücher.example/straße|{}": "https://xn--bcher-kva.example/stra%C3%9Fe%7C%7B%7D",
		"https://אa.example/":              "https://%D7%90a.example/",
	} {
		code := links.NewCode(links.CodeLength)
		b.insertLink(testLink{code: code, target: target, forward: true})
		for _, method := range []string{"GET", "HEAD"} {
			if a := b.raw(method, "/"+code); a.header.Get("Location") != want {
				t.Errorf("%s of %q leads to %q, want %q", method, target, a.header.Get("Location"), want)
			}
		}
		if a := b.raw("GET", "/"+code+"?a=ü|[]%&b=%41"); a.header.Get("Location") != want+"?a=%C3%BC%7C[]%25&b=%41" {
			t.Errorf("%q with a query leads to %q", target, a.header.Get("Location"))
		}
	}
}

func TestLongTargets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	for _, length := range []int{8000, links.MaxTarget} {
		target := "https://example.com/?a=%2B&b="
		target += strings.Repeat("x", length-len(target))
		b.leads(ann, " "+target+"\n", target)
		a := b.want(200, RoleReader, "GET", "/events?event_type=updated&limit=1", nil)
		changes := a.rows()[0]["details"].(map[string]any)["changes"].(map[string]any)["original_url"].(map[string]any)
		if changes["old"] != "https://example.com/before" || changes["new"] != target {
			t.Errorf("the event of a change says %.200v", changes)
		}
	}
	for _, target := range []string{
		"https://example.com/" + strings.Repeat("x", links.MaxTarget-19),
		"https://example.com/" + strings.Repeat("ü", 1400), // 8,420 bytes are sent
	} {
		a := b.want(400, RoleEditor, "POST", "/urls", object{"user_id": ann, "original_url": target})
		if got := a.fields()["original_url"]; got != links.ErrTargetLength.Error() {
			t.Errorf("%s", a.raw)
		}
	}
}
