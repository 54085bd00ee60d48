package e2e

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Somebody adds a user, makes a token, runs the command that is shown with it, and revokes
// a token in one browser, which signs another out.
func TestUsersAndTokens(t *testing.T) { byMouseAndKeys(t, usersAndTokens) }

func usersAndTokens(s *server, b *browser) {
	t := b.t
	b.signIn(s)
	b.press(`nav a[href="/app/users"]`)
	b.waitForText("No users yet")
	b.press(`a[href="/app/users/new"]`)
	b.enter("dialog #username", "ann")
	b.press("dialog .end button") // without an address
	b.waitFor("the fault", `document.querySelector("dialog #email-fault")`)
	if focus := b.evaluate("document.activeElement.id"); focus != "email" {
		t.Errorf("the focus is on %q", focus)
	}
	b.enter("dialog #email", "ann@example.com")
	b.press("dialog .end button")
	b.waitForText("The user is added.")
	b.waitForText("ann@example.com")

	b.press(`nav a[href="/app/tokens"]`)
	b.press(`a[href="/app/tokens/new"]`)
	b.enter("#name", "deploy script")
	b.choose("#role", "admin")
	b.press("form.sheet .end button")
	b.waitFor("the command", `document.querySelector("#curl")`)
	b.evaluate(`navigator.clipboard.writeText = (text) => { document.body.dataset.copied = text; return Promise.resolve(); }`)
	b.press("#curl + .copy")
	b.waitFor("copied", `document.body.dataset.copied`)
	command := b.evaluate("document.body.dataset.copied")
	out, err := exec.CommandContext(t.Context(), "sh", "-c", command).Output()
	must(t, err)
	var answer struct{ Data []any }
	if err := json.Unmarshal(out, &answer); err != nil || answer.Data == nil {
		t.Errorf("%s answered %s", command, out)
	}
	secret := b.evaluate(`document.getElementById("secret").innerText`)

	// The same token signs somebody in, who revokes it elsewhere.
	first, second := newBrowser(t), newBrowser(t)
	second.keys = b.keys
	for _, other := range []*browser{first, second} {
		other.signInWith(s, secret)
		other.waitForText("deploy script")
	}
	first.do("look at the system", chromedp.Navigate(s.url+"/app/system"))
	second.press(`nav a[href="/app/tokens"]`)
	second.press(`a[href$="/revoke"]`) // its own
	second.waitForText("you will be signed out")
	second.press("button.bad")
	for _, other := range []*browser{second, first} {
		other.waitFor("signed out", `location.pathname === "/app/sign-in"`)
		other.silent()
	}
	b.silent("400 (Bad Request)") // the wrong form
}

func TestFilterEvents(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	b := newBrowser(t)
	b.signIn(s)
	b.waitFor("the clicks are in", `document.querySelector("#numbers h2").innerText.startsWith("12 clicks of people")`) // the page of events does not move by itself
	b.do("look at events", chromedp.Navigate(s.url+"/app/events"))
	b.waitFor("all of them", `document.querySelectorAll(".events li").length === 19`) // 15 clicks, 3 links, a user
	b.do("only what was made", chromedp.Focus(chromedp.CSS("#event_type")), chromedp.KeyEvent("m"))
	b.waitFor("four", `document.querySelectorAll(".events li").length === 4 && location.search === "?event_type=created"`)
	b.do("a part of a code, which finds nothing", chromedp.SendKeys(chromedp.CSS("#url_id"), "cod"), chromedp.Sleep(500*time.Millisecond))
	b.silent()
	b.do("of one link", chromedp.SendKeys(chromedp.CSS("#url_id"), "e2\t"))
	b.waitFor("one", `document.querySelectorAll(".events li").length === 1`)
	b.do("its details", chromedp.Click(chromedp.CSS(".events summary")))
	b.waitFor("shown", `document.querySelector(".events pre").innerText.includes('"short_code": "code2"')`)
	b.do("go back", chromedp.NavigateBack())
	b.waitFor("all links", `document.querySelectorAll(".events li").length > 1`)
	b.silent()
}

// A queue that stands still shows on the page of the system without loading it anew.
func TestQueueThatStandsStill(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	b := newBrowser(t)
	b.signIn(s)
	b.do("look at the system", chromedp.Navigate(s.url+"/app/system"))
	b.waitFor("nothing waits", `document.querySelector("[data-queue=clicks]").innerText === "0"`)
	b.do("mark the page", chromedp.SetAttributeValue(chromedp.CSS("body"), "data-same", "yes"))
	jobs := b.evaluate(`document.querySelector(".head .actions a").href`)
	s.operate(http.MethodPut, strings.TrimSuffix(jobs, "/")+"/api/queues/clicks/pause")
	b.waitFor("paused", `document.querySelector("#system tbody").innerText.includes("paused")`)
	s.follow("code1", 0)
	b.waitFor("a batch waits", `document.querySelector("[data-queue=clicks]").innerText === "1"`)
	s.operate(http.MethodPut, strings.TrimSuffix(jobs, "/")+"/api/queues/clicks/resume")
	b.waitFor("nothing waits again", `document.querySelector("[data-queue=clicks]").innerText === "0"`)
	if b.evaluate("document.body.dataset.same") != "yes" {
		t.Error("the page was loaded anew")
	}
	b.silent()
}

// operate asks something of the jobs page, which is for operators.
func (s *server) operate(method, url string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, nil)
	must(s.t, err)
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := http.DefaultClient.Do(req)
	must(s.t, err)
	must(s.t, resp.Body.Close())
	if resp.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %s", method, url, resp.Status)
	}
}

// A question in a dialog can be left by the escape key, which gives the focus back.
func TestLeaveADialog(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.post("/tokens", map[string]any{"name": "script", "role": "editor"})
	b := newBrowser(t)
	b.keys = true
	b.signIn(s)
	b.press(`nav a[href="/app/tokens"]`)
	b.press(`a[href$="/revoke"]`)
	b.waitFor("the question", `document.activeElement.matches("dialog button.bad")`)
	b.do("change one's mind", chromedp.KeyEvent(kb.Escape))
	b.waitFor("no question, and the focus back", `!document.querySelector("dialog[open]") && document.activeElement.matches('a[href$="/revoke"]')`)
	b.press(`a[href$="/revoke"]`)
	b.waitFor("the question", `document.activeElement.matches("dialog button.bad")`)
	b.press("dialog button.bad")
	b.waitForText("The token is revoked.")
	b.silent()
}

func TestAdministrationWithoutScripts(t *testing.T) {
	t.Parallel()
	s := start(t)
	b := newBrowser(t)
	b.withoutScripts()
	b.signInWith(s, s.token)
	b.do("add a user", chromedp.Navigate(s.url+"/app/users/new"), chromedp.SendKeys(chromedp.CSS("#username"), "ann"), chromedp.SendKeys(chromedp.CSS("#email"), "ann@example.com"),
		chromedp.Click(chromedp.CSS("form.sheet .end button")))
	b.waitForText("The user is added.")
	b.do("add a domain", chromedp.Navigate(s.url+"/app/domains/new"), chromedp.SendKeys(chromedp.CSS("#host"), "go.example"), chromedp.Click(chromedp.CSS("form.sheet .end button")))
	b.waitForText("The domain is added")
	b.do("make a token", chromedp.Navigate(s.url+"/app/tokens/new"), chromedp.SendKeys(chromedp.CSS("#name"), "script"), chromedp.Click(chromedp.CSS("form.sheet .end button")))
	b.waitForText("The token is made.")
	b.do("revoke it", chromedp.Navigate(s.url+"/app/tokens"), chromedp.Click(chromedp.CSS(`a[href$="/revoke"]`)))
	b.waitForText("Revoke the token?")
	b.do("confirm", chromedp.Click(chromedp.CSS("button.bad")))
	b.waitForText("The token is revoked.")
	b.do("filter events", chromedp.Navigate(s.url+"/app/events"), chromedp.SetValue(chromedp.CSS("#event_type"), "clicked"), chromedp.Click(chromedp.CSS("form.search button")))
	b.waitForText("No event fits")
	b.do("look at the system", chromedp.Navigate(s.url+"/app/system"))
	b.waitForText("Queues")
	b.silent()
}
