package e2e

import (
	"os"
	"testing"

	"github.com/chromedp/chromedp"
)

// On a phone the columns have no heads, and one chooses the order of the list of links in the
// form. Elsewhere the heads do, and the choice is not shown.
func TestOrderOnAPhone(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	b := newBrowser(t)
	b.signIn(s)
	b.view(1200, "light")
	b.do("open the list", chromedp.Navigate(s.url+"/app/links?tag=sale"), chromedp.WaitVisible(chromedp.CSS("thead")))
	b.waitFor("no choice", `document.querySelector("#sort").getClientRects().length === 0`)
	b.do("sort by a head", chromedp.Click(chromedp.CSS("th:nth-child(2) a")))
	b.waitFor("the order", `location.search.includes("sort=-people") && document.querySelector("#sort").value === "-people"`)
	b.view(390, "light")
	b.do("wait for the choice", chromedp.WaitVisible(chromedp.CSS("#sort")))
	if pictures := os.Getenv("SCREENSHOTS"); pictures != "" {
		b.picture(pictures + "/order-phone.png")
	}
	b.evaluate(`(order => { order.value = "oldest"; order.dispatchEvent(new Event("input", {bubbles: true})); })(document.querySelector("#sort"))`)
	b.waitFor("the order", `new URLSearchParams(location.search).get("sort") === "oldest" && document.querySelector("tbody .name").textContent.endsWith("/code1")`)
	b.waitFor("the filter", `new URLSearchParams(location.search).get("tag") === "sale"`)
	b.silent()
}
