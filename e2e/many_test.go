package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// many makes 300 links with a tag, of which one has another tag too, and three without.
func (s *server) many() {
	s.t.Helper()
	s.fill()
	for i := range 3 {
		var all []map[string]any
		for n := range 100 {
			code := fmt.Sprintf("many%d", 100*i+n)
			all = append(all, map[string]any{"user_id": 1, "original_url": "https://example.com/" + code, "short_code": code, "tags": []string{"many"}})
		}
		s.request("POST", "/urls/bulk", all)
	}
	s.request("PATCH", "/urls/bulk", map[string]any{"filter": map[string]any{"search": "/many7"}, "add_tags": []string{"spring"}})
}

// countTagged returns how many links have a tag.
func (s *server) countTagged(tag string) any {
	s.t.Helper()
	return s.request("PATCH", "/urls/bulk?dry_run=true", map[string]any{"filter": map[string]any{"tag": tag}, "is_active": false})["found"]
}

func TestTagManyAndUndoIt(t *testing.T) { byMouseAndKeys(t, tagManyAndUndoIt) }

func tagManyAndUndoIt(s *server, b *browser) {
	t := b.t
	s.many()
	b.signIn(s)
	b.press(`nav a[href="/app/links"]`)
	b.enter("#tag", "many")
	b.waitFor("the filter", `location.search === "?tag=many"`)
	b.waitFor("no bar", `getComputedStyle(document.querySelector(".many")).display === "none"`)
	b.press(".pick-all")
	b.waitForText("25 ticked")
	b.press(".many [name=all]")
	b.press(".many [value=tags]")
	b.waitForText("Change the tags of 300 links")
	b.enter("dialog #add_tags", "spring, walks")
	b.press("dialog .end button")
	b.waitForText("The tags of 300 links are changed.")
	b.waitFor("the filter", `new URLSearchParams(location.search).get("tag") === "many"`)
	if got := s.countTagged("walks"); got != 300.0 {
		t.Errorf("%v links have the tag", got)
	}
	b.press(".done button")
	b.waitForText("The change is taken back.")
	if got := s.countTagged("walks"); got != 0.0 {
		t.Errorf("%v links still have the tag", got)
	}
	if got := s.countTagged("spring"); got != 11.0 {
		t.Errorf("%v links have the tag that 11 had before", got)
	}
	b.silent()
}

func TestTickAFewByKeyboard(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.many()
	b := newBrowser(t)
	b.signIn(s)
	b.do("open the list", chromedp.Navigate(s.url+"/app/links"), chromedp.WaitVisible(chromedp.CSS(".pick")))
	b.tabTo(".pick")
	b.do("tick the first", chromedp.KeyEvent(" "))
	b.tabTo(".pick:not(:checked)")
	b.do("tick the second", chromedp.KeyEvent(" "))
	b.tabTo(".pick:not(:checked)")
	b.do("tick the third", chromedp.KeyEvent(" "))
	b.waitForText("3 ticked")
	b.tabTo(".many [value=off]")
	b.do("switch them off", chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("dialog[open]")))
	b.waitForText("Switch 3 links off?")
	b.do("confirm", chromedp.KeyEvent(kb.Enter))
	b.waitForText("3 links are switched off.")
	b.waitFor("their state", `document.querySelectorAll("tbody .state.off").length === 3`)

	// A range, with the shift key.
	b.do("tick two rows", chromedp.Click(chromedp.CSS("tbody tr:nth-child(4) .pick")))
	b.evaluate(`document.querySelector("tbody tr:nth-child(8) .pick").dispatchEvent(new MouseEvent("click", {shiftKey: true, bubbles: true, cancelable: true}))`)
	b.waitForText("5 ticked")
	b.silent()
}

func TestPasteFive(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	b := newBrowser(t)
	b.signIn(s)
	b.do("open the page", chromedp.Navigate(s.url+"/app/links"), chromedp.Click(chromedp.CSS(`a[href="/app/links/paste"]`)), chromedp.WaitVisible(chromedp.CSS("#lines")))
	lines := []string{"https://example.com/a", "walks https://example.com/b", "example.com/c", "https://example.com/d", "https://example.com/e"}
	b.do("paste five", chromedp.SetValue(chromedp.CSS("#lines"), strings.Join(lines, "\n")), chromedp.SendKeys(chromedp.CSS("#tags"), "pasted"), chromedp.Click(chromedp.CSS(".end button")))
	b.waitForText("4 lines of 5 can be made. Nothing is made so far.")
	b.waitForText("must start with http:// or https://, such as https://example.com/c")
	if got := s.countTagged("pasted"); got != 0.0 {
		t.Errorf("%v links are made already", got)
	}
	b.do("make the four", chromedp.Click(chromedp.CSS(".end button[value=make]")))
	b.waitForText("4 links are made")
	b.waitForText("/walks")
	if left := b.evaluate(`document.querySelector("#lines").value`); left != "example.com/c" {
		t.Errorf("%q is left", left)
	}
	if all := b.evaluate(`document.querySelector("#made h2 [data-copy]").dataset.copy.split("\n").length`); all != "4" {
		t.Errorf("%s are copied", all)
	}
	b.do("load the page again", chromedp.Reload())
	b.waitForText("4 links are made")
	b.do("mend the fifth", chromedp.SetValue(chromedp.CSS("#lines"), "https://example.com/c"), chromedp.Click(chromedp.CSS(".end button")), chromedp.WaitVisible(chromedp.CSS("[value=make]")), chromedp.Click(chromedp.CSS("[value=make]")))
	b.waitForText("1 link is made")
	if got := s.countTagged("pasted"); got != 5.0 {
		t.Errorf("%v links are made", got)
	}
	b.silent()
}

// A form that is sent twice at once makes one link, and Enter sends it, although there is a
// button before that suggests a code.
func TestSendAFormTwice(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	b := newBrowser(t)
	b.signIn(s)
	b.do("ask for a code", chromedp.KeyEvent("n"), chromedp.WaitVisible(chromedp.CSS("dialog[open] #original_url")),
		chromedp.SendKeys(chromedp.CSS("dialog #original_url"), "https://example.com/shop/Garden-Tools.html"), chromedp.Click(chromedp.CSS("dialog [name=suggest]")))
	b.waitFor("the code", `document.querySelector("dialog[open] #short_code").value === "garden-tools" && document.activeElement.id === "short_code"`)
	b.evaluate(`(window.form = document.querySelector("dialog[open] form"), 0)`)
	b.evaluate(`(window.sent = Promise.all([1, 2].map(() => fetch(form.action, {method: "POST", body: new URLSearchParams(new FormData(form))}).then((a) => a.url))).then((all) => { window.both = new Set(all).size; }), 0)`)
	b.waitFor("both answers", "window.both === 1")
	b.do("press Enter too", chromedp.KeyEvent(kb.Enter))
	b.waitForText("The link is made.")
	if got := s.request("GET", "/urls?search=Garden-Tools", nil)["count"]; got != 1.0 {
		t.Errorf("%v links are made", got)
	}
	b.silent()
}

func TestTagManyWithoutScripts(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.many()
	b := newBrowser(t)
	b.withoutScripts()
	b.signIn(s)
	b.do("choose all of a tag", chromedp.Navigate(s.url+"/app/links?tag=many"), chromedp.Click(chromedp.CSS(".many [name=all]")), chromedp.Click(chromedp.CSS(".many [value=tags]")))
	b.waitForText("Change the tags of 300 links")
	b.do("send it", chromedp.SendKeys(chromedp.CSS("#add_tags"), "walks"), chromedp.Click(chromedp.CSS(".end button")))
	b.waitForText("The tags of 300 links are changed.")
	if got := s.countTagged("walks"); got != 300.0 {
		t.Errorf("%v links have the tag", got)
	}
	b.do("undo", chromedp.Click(chromedp.CSS(".done button")))
	b.waitForText("The change is taken back.")
	b.do("tick two", chromedp.Click(chromedp.CSS("tr:nth-child(1) .pick")), chromedp.Click(chromedp.CSS("tr:nth-child(2) .pick")), chromedp.Click(chromedp.CSS(".many [value=delete]")))
	b.waitForText("Delete 2 links?")
	b.waitForText("This cannot be undone")
	b.do("delete them", chromedp.Click(chromedp.CSS("button.bad")))
	b.waitForText("2 links are deleted.")
	if got := s.countTagged("many"); got != 298.0 {
		t.Errorf("%v links are left", got)
	}
	b.silent()
}
