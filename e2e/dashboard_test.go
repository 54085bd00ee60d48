package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// target is where links lead.
func target(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><link rel=icon href=data:,><title>target</title><p>Here it is")
	}))
	t.Cleanup(server.Close)
	return server.URL + "/here"
}

func TestMakeALinkAndSeeAClickArrive(t *testing.T) { byMouseAndKeys(t, makeALinkAndSeeAClickArrive) }

func makeALinkAndSeeAClickArrive(s *server, b *browser) {
	t := b.t
	b.signIn(s)
	b.waitForText("Make your first link")
	if b.keys {
		b.do("press n", chromedp.KeyEvent("n"))
	} else {
		b.press(".main-action")
	}
	b.do("wait for the dialog", chromedp.WaitVisible(chromedp.CSS("dialog[open] #original_url")))
	b.enter("#username", "ann")
	b.enter("#email", "ann@example.com")
	b.enter("#original_url", "not an address")
	b.waitFor("the fault", `document.querySelector("#original_url-fault")`)
	b.press("dialog .end button") // all the same
	b.waitFor("she is made", `document.querySelector("dialog select#user_id")`)
	if focus := b.evaluate("document.activeElement.id"); focus != "original_url" {
		t.Errorf("the focus is on %q", focus)
	}
	b.enter("#original_url", target(t))
	b.enter("#short_code", "spring")
	b.press("dialog .end button")
	b.waitForText("The link is made.")
	b.waitForText("live")
	b.waitForText("No data yet") // which is not the same as a line at zero

	b.do("mark the page", chromedp.SetAttributeValue(chromedp.CSS("body"), "data-same", "yes"))
	b.press("#first a") // which opens another tab
	b.comeBack()
	b.waitFor("the click", `document.querySelectorAll(".feed li").length === 1`)
	b.waitFor("the count", `document.querySelector("#numbers h2").innerText.startsWith("1 click of people")`)
	if b.evaluate("document.body.dataset.same") != "yes" {
		t.Error("the page was loaded anew")
	}
	b.press(".brand")
	b.waitFor("the click of today", `document.querySelector("#today b").innerText === "1"`)
	b.silent("400 (Bad Request)") // the wrong form
}

func TestTheSameWithoutScripts(t *testing.T) {
	t.Parallel()
	s := start(t)
	b := newBrowser(t)
	b.withoutScripts()
	b.signIn(s)
	b.waitForText("Make your first link")
	b.do("make a link", chromedp.Click(chromedp.CSS(".main-action")), chromedp.WaitVisible(chromedp.CSS("#original_url")),
		chromedp.SendKeys(chromedp.CSS("#username"), "ann"), chromedp.SendKeys(chromedp.CSS("#email"), "ann@example.com"), chromedp.SendKeys(chromedp.CSS("#original_url"), target(t)),
		chromedp.SendKeys(chromedp.CSS("#short_code"), "spring"), chromedp.Click(chromedp.CSS("form.sheet .end button:not(.quiet)")))
	b.waitForText("The link is made.")
	b.tab().do("follow the link", chromedp.Navigate(s.url+"/spring"))
	page := s.url + "/app/links/1"
	b.lookAgain(page, `document.querySelector("#numbers h2").innerText.startsWith("1 click of people")`)
	b.waitFor("the click", `document.querySelectorAll(".feed li").length === 1`)
	b.do("filter by browser", chromedp.Click(chromedp.CSS(`a[href*="browser=Chrome"]`)))
	b.waitForText("browser: Chrome")
	b.do("switch it off", chromedp.Navigate(page), chromedp.Click(chromedp.CSS(".actions form button")))
	b.waitForText("The link is switched off.")
	b.do("delete it", chromedp.Click(chromedp.CSS(`a[href$="/delete"]`)))
	b.waitForText("Delete ")
	b.do("confirm", chromedp.Click(chromedp.CSS("button.bad")))
	b.waitForText("The link is deleted.")
	b.silent()
}

func TestSearchWhileTyping(t *testing.T) { byMouseAndKeys(t, searchWhileTyping) }

func searchWhileTyping(s *server, b *browser) {
	s.fill()
	b.signIn(s)
	if b.keys {
		b.do("press /", chromedp.KeyEvent("/"))
		b.waitFor("the list", `location.pathname === "/app/links" && document.activeElement.id === "q"`)
	} else {
		b.press(`nav a[href="/app/links"]`)
	}
	b.enter("#q", "summer")
	b.waitFor("one link", `document.querySelectorAll("tbody tr").length === 1 && document.querySelector("tbody").innerText.includes("summer sale")`)
	b.waitFor("the address", `location.search === "?q=summer"`)
	b.do("go back", chromedp.NavigateBack())
	b.waitFor("all links", `document.querySelectorAll("tbody tr").length === 3 && location.search === ""`)
	b.enter("#q", "code2")
	b.waitFor("the link with the code", `document.querySelector(".exact a")?.innerText.endsWith("/code2")`)
	b.press(".exact a")
	b.waitFor("its page", `document.querySelector("h1")?.innerText.includes("/code2")`)
	b.silent()
}

func TestChartTellsItsValues(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	b := newBrowser(t)
	b.signIn(s)
	b.waitFor("the count", `document.querySelector("#numbers h2").innerText.startsWith("12 clicks of people")`)
	b.do("choose another range", chromedp.Click(chromedp.CSS(`.ranges a[href*="7d"]`)))
	b.waitFor("seven days", `document.querySelectorAll(".behind tbody tr").length === 7`)
	b.tabTo(".picture")
	b.do("go to its end", chromedp.KeyEvent(kb.End))
	b.waitFor("the values of today", `/People: 12.*Robots: 3.*Clicks: 15/s.test(document.querySelector(".tip").innerText)`)
	b.do("go to the day before", chromedp.KeyEvent(kb.ArrowLeft))
	b.waitFor("the values of yesterday", `/People: 0/.test(document.querySelector(".tip").innerText)`)
	b.silent()
}

func TestRevokedTokenIsSignedOut(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	made := s.post("/tokens", map[string]any{"name": "somebody", "role": "editor"})
	b := newBrowser(t)
	b.signInWith(s, made["token"].(string))
	b.waitForText("somebody")
	b.waitFor("the feed", `!document.querySelector("[data-live-state]").hidden`)
	b.do("renew nothing", chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("[data-fresh]").forEach((part) => part.removeAttribute("data-fresh"))`)) // it is the feed that tells
	s.request("DELETE", fmt.Sprintf("/tokens/%v", made["id"]), nil)
	b.waitFor("signed out", `location.pathname === "/app/sign-in"`)
}

// Each page, in both colours and on a phone: nothing in the console, nothing to scroll
// sideways. With SCREENSHOTS the pictures are kept in that folder.
func TestHowPagesLook(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.weeks()
	s.post("/tokens", map[string]any{"name": "deploy script", "role": "editor"})
	s.post("/marks", map[string]any{"user_agent": "AcmeWatch/*", "kind": "monitor"})
	s.request("PATCH", "/urls/2", map[string]any{"title": "Menu of next week"})
	pictures := os.Getenv("SCREENSHOTS")
	b := newBrowser(t)
	b.do("open the page to sign in", chromedp.Navigate(s.url+"/app/sign-in"))
	b.look(pictures, "sign-in", s.url+"/app/sign-in")
	b.do("leave it", chromedp.Navigate("about:blank"))
	b.signIn(s)
	for name, path := range map[string]string{
		"overview": "/app", "links": "/app/links", "link": "/app/links/1", "new-link": "/app/links/new", "edit-link": "/app/links/1/edit",
		"delete-link": "/app/links/1/delete", "sessions": "/app/sessions", "filtered": "/app/links/1?browser=Chrome&range=24h", "no-clicks": "/app/links/3", "none-found": "/app/links?tag=nothing",
		"events": "/app/events", "no-events": "/app/events?to=2001-01-01T00:00", "users": "/app/users", "no-such-user": "/app/users?q=nobody", "new-user": "/app/users/new", "delete-user": "/app/users/1/delete",
		"domains": "/app/domains", "new-domain": "/app/domains/new", "tokens": "/app/tokens", "no-tokens": "/app/tokens?after=1000", "new-token": "/app/tokens/new", "revoke-token": "/app/tokens/1/revoke",
		"marks": "/app/marks", "new-mark": "/app/marks/new", "system": "/app/system", "drop-batch": "/app/system/drop?batch=none",
		"qr": "/app/links/1/qr", "history": "/app/links/1/history", "tags": "/app/tags", "edit-tag": "/app/tags/edit?tag=sale", "delete-tag": "/app/tags/delete?tag=sale",
		"many-tags": "/app/links/bulk?all=1&do=tags", "many-off": "/app/links/bulk?id=1&id=2&do=off", "many-delete": "/app/links/bulk?all=1&tag=sale&do=delete", "many-refused": "/app/links/bulk", "paste": "/app/links/paste",
	} {
		b.look(pictures, name, s.url+path)
	}
	b.look(pictures, "no-imports", s.url+"/app/imports")
	trial, last := s.importFiles()
	for name, path := range map[string]string{
		"imports": "/app/imports", "import": last, "dry-run": trial, "undo-import": last + "/undo", "rejected-rows": last + "/rows",
	} {
		b.look(pictures, name, s.url+path)
	}
	b.look(pictures, "preview-import", s.url+"/app/imports", b.previewOwnColumns)
	b.silent()
	// Visitors see pages too, with nothing of the dashboard.
	s.request("PATCH", "/urls/8", map[string]any{"is_active": false})
	b.look(pictures, "visitor-404", s.url+"/nothing", func() { b.hasStatus("404") })
	b.look(pictures, "visitor-410", s.url+"/code3", func() { b.hasStatus("410") })
	b.look(pictures, "home", s.url+"/")
	b.silent("404 (Not Found)", "410 (Gone)")
}

// axe finds what keeps people out who use a page with other means than eyes and mouse.
// tools/setup.sh fetches it.
const axe = "../bin/axe/package/axe.min.js"

// violations returns what axe finds in the page.
func (b *browser) violations() []string {
	b.t.Helper()
	script, err := os.ReadFile(axe)
	must(b.t, err)
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	found, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](string(script)+`;
axe.run().then((r) => r.violations.map((v) => v.id + ": " + v.help + ": " + v.nodes.map((n) => n.html).join(" ").slice(0, 400)))`, chromedp.EvalAwaitPromise))
	must(b.t, err)
	return found
}

// look looks at a page in both colours and on a phone, after some steps on it.
func (b *browser) look(pictures, name, url string, steps ...func()) {
	b.t.Helper()
	for _, v := range []struct {
		name, scheme string
		width        int64
	}{{"light", "light", 1200}, {"dark", "dark", 1200}, {"phone", "light", 390}} {
		b.view(v.width, v.scheme)
		b.do(name, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("main")))
		for _, step := range steps {
			step()
		}
		if width := b.evaluate("document.documentElement.scrollWidth"); width != fmt.Sprint(v.width) {
			b.t.Errorf("%s, %s: the page is %s wide, and the window %d", name, v.name, width, v.width)
		}
		for _, violation := range b.violations() {
			b.t.Errorf("%s, %s: %s", name, v.name, violation)
		}
		if pictures != "" {
			b.picture(filepath.Join(pictures, name+"-"+v.name+".png"))
		}
	}
}

func (b *browser) picture(path string) {
	b.t.Helper()
	b.evaluate(`document.querySelectorAll("img[loading=lazy]").forEach((img) => { img.loading = "eager"; })`)
	b.waitFor("its images", `[...document.images].every((img) => img.complete)`)
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	must(b.t, err)
	must(b.t, os.WriteFile(path, picture, 0o644))
}

// hasStatus checks the status of the page that is shown.
func (b *browser) hasStatus(want string) {
	b.t.Helper()
	if got := b.evaluate(`performance.getEntriesByType("navigation")[0].responseStatus`); got != want {
		b.t.Errorf("the status is %s", got)
	}
}

// fill makes three links, and clicks on two of them.
func (s *server) fill() {
	s.t.Helper()
	user := s.post("/users", map[string]any{"username": "ann", "email": "ann@example.com"})
	for i, title := range []string{"spring sale", "summer sale", "autumn walks" + strings.Repeat(" along rivers and over hills", 8)} {
		code := fmt.Sprintf("code%d", i+1)
		s.post("/urls", map[string]any{"user_id": user["id"], "original_url": "https://example.com/" + code + strings.Repeat("/and/on", 20), "short_code": code, "title": title, "tags": []string{"sale"}})
		for n := range 5 * (2 - i) {
			s.follow(code, n)
		}
	}
}

// follow clicks on a link: as a person, and now and then as a robot.
func (s *server) follow(code string, n int) {
	s.t.Helper()
	s.visit("", code, n)
}

// visit is follow for a link on a host, "" for the main one.
func (s *server) visit(host, code string, n int) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/"+code, nil)
	must(s.t, err)
	req.Host = host
	req.Header.Set("User-Agent", personAgent)
	req.Header.Set("Referer", []string{"https://news.example/", ""}[n%2])
	if n%4 == 3 {
		req.Header.Set("User-Agent", "Mozilla/5.0 (compatible; Googlebot/2.1)")
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	must(s.t, err)
	must(s.t, resp.Body.Close())
	if resp.StatusCode != http.StatusFound {
		s.t.Fatalf("follow %s: %s", code, resp.Status)
	}
}

func (s *server) post(path string, body map[string]any) map[string]any {
	s.t.Helper()
	return s.request("POST", path, body)
}

func (s *server) request(method, path string, body any) map[string]any {
	s.t.Helper()
	text, err := json.Marshal(body)
	must(s.t, err)
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, bytes.NewReader(text))
	must(s.t, err)
	req.Header.Set("Content-Type", "application/json")
	return s.send(req)
}

// send sends a request to the API, and returns the answer.
func (s *server) send(req *http.Request) map[string]any {
	s.t.Helper()
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := http.DefaultClient.Do(req)
	must(s.t, err)
	defer resp.Body.Close() //nolint:errcheck // read-only
	answer, err := io.ReadAll(resp.Body)
	must(s.t, err)
	if resp.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %s %s", req.Method, req.URL.Path, resp.Status, answer)
	}
	var out map[string]any
	_ = json.Unmarshal(answer, &out)
	return out
}
