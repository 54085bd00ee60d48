package e2e

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// Somebody finds a user by typing, goes back, and finds nobody.
func TestSearchUsers(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, name := range []string{"ann", "bob", "carla"} {
		s.post("/users", map[string]any{"username": name, "email": name + "@example.com"})
	}
	b := newBrowser(t)
	b.signIn(s)
	rows := func(n string) string { return `document.querySelectorAll("tbody tr").length === ` + n }
	b.do("look at users", chromedp.Navigate(s.url+"/app/users"), chromedp.WaitVisible(chromedp.CSS("#q")))
	b.waitFor("all", rows("3"))
	b.do("type", chromedp.SendKeys(chromedp.CSS("#q"), "CARL"))
	b.waitFor("one user", rows("1")+` && document.querySelector("tbody").innerText.includes("carla@example.com") && location.search === "?q=CARL"`)
	if export := b.evaluate(`document.querySelector(".export").href`); !strings.HasSuffix(export, "/app/users/export?format=csv&q=CARL") {
		t.Errorf("the export is %s", export)
	}
	b.do("type more", chromedp.SendKeys(chromedp.CSS("#q"), "son"))
	b.waitForText("No user fits")
	b.do("go back", chromedp.NavigateBack())
	b.waitFor("all again", rows("3")+` && location.search === ""`)
	b.silent()

	plain := newBrowser(t)
	plain.withoutScripts()
	plain.signInWith(s, s.token)
	plain.do("search", chromedp.Navigate(s.url+"/app/users"), chromedp.SendKeys(chromedp.CSS("#q"), "bob"), chromedp.Click(chromedp.CSS("form.search button")))
	plain.waitFor("one user", rows("1")+` && document.querySelector("#q").value === "bob"`)
	plain.silent()
}
