package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// byMouseAndKeys does a journey twice, each on a program of its own: with the mouse, and
// with the keyboard alone.
func byMouseAndKeys(t *testing.T, journey func(s *server, b *browser)) {
	t.Helper()
	t.Parallel()
	for _, hand := range []string{"mouse", "keys"} {
		t.Run(hand, func(t *testing.T) {
			t.Parallel()
			s, b := start(t), newBrowser(t)
			b.keys = hand == "keys"
			journey(s, b)
		})
	}
}

// press presses a link, a button or a box to tick.
func (b *browser) press(selector string) {
	b.t.Helper()
	if !b.keys {
		b.do("click on "+selector, chromedp.Click(chromedp.CSS(selector)))
		return
	}
	b.goTo(selector)
	key := kb.Enter
	if b.evaluate(`document.activeElement.type`) == "checkbox" {
		key = " "
	}
	b.do("press "+selector, chromedp.KeyEvent(key))
}

// enter puts a text into a field, instead of what is there.
func (b *browser) enter(selector, text string) {
	b.t.Helper()
	if b.keys {
		b.goTo(selector)
	} else {
		b.do("click into "+selector, chromedp.Click(chromedp.CSS(selector)))
	}
	b.write(text)
}

// choose chooses a value of a list. By keys, as many letters of it are typed as no other has:
// the page may show a new list after each.
func (b *browser) choose(selector, value string) {
	b.t.Helper()
	option := fmt.Sprintf("document.querySelector(%q)", fmt.Sprintf("%s option[value=%q]", selector, value))
	b.waitFor("the value", option)
	if !b.keys {
		b.do("choose "+value, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(
			`{const s = document.querySelector(%q); s.value = %q; s.dispatchEvent(new Event("change", {bubbles: true}))}`, selector, value)))
		return
	}
	b.goTo(selector)
	word := b.evaluate(fmt.Sprintf(`((own, all) => {
		let n = 1;
		while (n < own.length && all.some((other) => other !== own && other.startsWith(own.slice(0, n)))) n++;
		return own.slice(0, n);
	})(%s.text, [...document.querySelectorAll("%s option")].map((option) => option.text))`, option, selector))
	b.do("type "+word, chromedp.KeyEvent(word))
	b.waitFor("the value", fmt.Sprintf("document.querySelector(%q).value === %q", selector, value))
}

// chooseFile chooses a file. By keys, the dialog of the browser is opened, which gives it.
func (b *browser) chooseFile(selector, path string) {
	b.t.Helper()
	if b.keys {
		opened := make(chan struct{}, 1)
		must(b.t, chromedp.Listen(b.ctx, func(ev any) {
			if _, ok := ev.(*page.EventFileChooserOpened); ok {
				select {
				case opened <- struct{}{}:
				default:
				}
			}
		}))
		b.intercept(true)
		b.press(selector)
		select {
		case <-opened:
		case <-time.After(patience):
			b.t.Fatal("no dialog to choose a file opens")
		}
		b.intercept(false)
	}
	b.do("choose the file", chromedp.SetUploadFiles(chromedp.CSS(selector), []string{path}))
}

func (b *browser) intercept(on bool) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, page.SetInterceptFileChooserDialog, page.SetInterceptFileChooserDialogParams{Enabled: on})
	must(b.t, err)
}

// goTo has the focus on an element, by the tab key if it is elsewhere.
func (b *browser) goTo(selector string) {
	b.t.Helper()
	b.waitFor(selector, fmt.Sprintf("document.querySelector(%q)", selector))
	if b.evaluate(fmt.Sprintf("document.activeElement.matches(%q)", selector)) != "true" {
		b.tabTo(selector)
	}
}

// tabTo presses the tab key until an element has the focus.
func (b *browser) tabTo(selector string) {
	b.t.Helper()
	for range 200 {
		b.do("press the tab key", chromedp.KeyEvent(kb.Tab))
		if b.evaluate(fmt.Sprintf("document.activeElement.matches(%q)", selector)) == "true" {
			return
		}
	}
	b.t.Fatalf("the tab key does not lead to %s\nthe page is %s", selector, b.text())
}

// write puts a text into the field that has the focus, by keys.
func (b *browser) write(text string) {
	b.t.Helper()
	b.do("write "+text, chromedp.KeyEvent("a", chromedp.KeyModifiers(2)), chromedp.KeyEvent(text))
}

// comeBack comes back to a tab from another one that has opened before it: a tab that nobody
// sees shows no clicks.
func (b *browser) comeBack() {
	b.t.Helper()
	b.waitFor("another tab is seen", `document.visibilityState === "hidden"`)
	_, err := chromedp.Call(b.ctx, page.BringToFront, cdp.Empty{})
	must(b.t, err)
	b.waitFor("it is seen again", `document.visibilityState === "visible"`)
}

// slow sets how many bytes a second can be sent, so that somebody can do something
// meanwhile; 0 for no bound.
func (b *browser) slow(bytes float64) {
	b.t.Helper()
	conditions := []*network.Conditions{{UploadThroughput: bytes, DownloadThroughput: -1}}
	if bytes == 0 {
		conditions = []*network.Conditions{}
	}
	_, err := chromedp.Call(b.ctx, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{MatchedNetworkConditions: conditions})
	must(b.t, err)
}
