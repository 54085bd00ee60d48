package e2e

import (
	"fmt"
	"testing"
	"time"
)

// disagreement is a script that returns what does not add up on a page of numbers, "" if all
// does.
const disagreement = `(() => {
	const number = (text) => Number((text ?? "").replace(/[^0-9]/g, ""));
	const sum = (parts) => [...parts].reduce((all, part) => all + number(part.textContent), 0);
	const column = (name) => [...document.querySelectorAll(".behind thead th")].findIndex((th) => th.textContent === name) + 1;
	const series = (name) => sum(document.querySelectorAll(".behind tbody tr > :nth-child(" + column(name) + ")"));
	const title = document.querySelector("#numbers h2").textContent;
	const people = number(title.match(/^(.*) clicks? of people/)[1]);
	const robots = number(title.match(/([0-9\u202f]+) robots?$/)?.[1]);
	const wrong = [];
	const same = (what, a, b) => { if (a !== b) wrong.push(what + ": " + a + " and " + b); };
	same("people of the series", series("People"), people);
	same("robots of the series", series("Robots"), robots);
	same("clicks of the series", series("Clicks"), people + robots);
	for (const panel of document.querySelectorAll("#panels .panel")) {
		same(panel.querySelector("h2").textContent, sum(panel.querySelectorAll(".bars b")), people);
	}
	if (robots) same("kinds of robots", sum(document.querySelector("#robots .bars").querySelectorAll("b")), robots);
	if (!people) wrong.push("there are no clicks");
	return wrong.join("; ");
})()`

func (b *browser) agrees(what string) {
	b.t.Helper()
	if wrong := b.evaluate(disagreement); wrong != "" {
		b.t.Errorf("%s: %s\nthe page is %s", what, wrong, b.text())
	}
}

// clicksOf returns the number of a bar or a title that begins with it.
func (b *browser) clicksOf(selector string) string {
	b.t.Helper()
	return b.evaluate(fmt.Sprintf(`document.querySelector(%q).textContent.trim().match(/^[0-9\u202f]+/)[0].replace(/\D/g, "")`, selector))
}

// In every range and zone all parts of a page add up to the same, and pages agree with each
// other and with the API.
func TestSumsAgree(t *testing.T) { byMouseAndKeys(t, sumsAgree) }

func sumsAgree(s *server, b *browser) {
	t := b.t
	s.weeks()
	clicked := time.Now()
	s.await("all clicks are in", func() bool {
		asOf, err := time.Parse(time.RFC3339Nano, s.request("GET", "/stats", nil)["as_of"].(string))
		return err == nil && asOf.After(clicked)
	})
	b.signIn(s)
	const first = `#panels .panel:first-child li:first-child`
	top := b.clicksOf(first + " b")
	b.press(first + " a")
	b.waitFor("the link", `location.pathname.startsWith("/app/links/")`)
	if got := b.clicksOf("#numbers h2"); got != top {
		t.Errorf("the overview says %s, and the link %s", top, got)
	}
	b.press(`.period summary`)
	year := map[string]bool{}
	for _, zone := range []string{"Europe/Berlin", "America/Santiago", "Asia/Kathmandu"} {
		b.enter("#tz", zone)
		b.press(".period form button")
		b.waitFor("the zone", fmt.Sprintf(`new URLSearchParams(location.search).get("tz") === %q`, zone))
		for _, part := range []string{"7d", "30d", "12mo"} {
			b.press(fmt.Sprintf(`.ranges a[href*="range=%s"]`, part))
			b.waitFor("the range", fmt.Sprintf(`new URLSearchParams(location.search).get("range") === %q && document.querySelector(".ranges [aria-current]").href === location.href`, part))
			b.agrees(part + " in " + zone)
		}
		year[b.clicksOf("#numbers h2")] = true
	}
	people := fmt.Sprint(s.request("GET", "/urls/1/stats?range=12mo&kind=person", nil)["totals"].(map[string]any)["clicks"])
	if len(year) != 1 || !year[people] {
		t.Errorf("the zones say %v for the year, and the API says %s", year, people)
	}

	const german = `#panels a[href*="country=DE"]`
	want := b.clicksOf(`#panels li:has(a[href*="country=DE"]) b`)
	b.press(german)
	b.waitForText("country: Germany")
	if got := b.clicksOf("#numbers h2"); got != want {
		t.Errorf("the row says %s, and the page filtered by it %s", want, got)
	}
	b.agrees("those of Germany")
	b.press(".filters a")
	b.waitFor("all", `!document.querySelector(".filters")`)
	b.agrees("all again")
	b.silent()
}
