package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
)

// number writes a number with a thin space between thousands.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	var out strings.Builder
	for i, d := range digits {
		if left := len(digits) - i; i > 0 && left%3 == 0 && digits[i-1] != '-' {
			out.WriteRune('\u202f')
		}
		out.WriteRune(d)
	}
	return out.String()
}

// plural returns the word for a number of things.
func plural(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// numbered returns a number with the words that follow it.
func numbered(n int, one, many string) string {
	return number(int64(n)) + " " + plural(int64(n), one, many)
}

// change writes by how much a number differs from the one before. It returns "" where
// there is nothing to compare with.
func change(now, before int64) string {
	if before == 0 {
		return ""
	}
	switch by := math.Round(100 * float64(now-before) / float64(before)); {
	case by > 0:
		return fmt.Sprintf("+%.0f %%", by)
	case by < 0:
		return fmt.Sprintf("−%.0f %%", -by)
	}
	return "±0 %"
}

// bar draws a share from 0 to 1 as a bar, which fills what it is in.
func bar(share float64) template.HTML {
	if !(share > 0) { // nor NaN
		share = 0
	}
	width := strconv.FormatFloat(100*min(share, 1), 'f', 1, 64)
	return template.HTML(`<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect width="` + width + `" height="1"/></svg>`) //nolint:gosec // a number
}

var regions = display.English.Regions()

// countryName returns the name of a country of two letters.
func countryName(code string) string {
	region, err := language.ParseRegion(code)
	if err != nil {
		return code
	}
	return cmp.Or(regions.Name(region), code)
}

// none and other are the values that stand for no value and for all further ones.
const none, other = "(none)", "(other)"

// label returns the words for a value of a breakdown.
func label(dimension, value string) string {
	switch {
	case value == other:
		return "all others"
	case value == none && dimension == "referrer":
		return "direct or not told"
	case value == none:
		return "not known"
	case dimension == "country":
		return countryName(value)
	case dimension == "kind" && kinds[value].name != "":
		return kinds[value].name
	case dimension == "trigger" && value == "qr":
		return "QR code"
	}
	return value
}

// kinds are the kinds of clicks in words, of one click and of several, and why a click is
// of each.
var kinds = map[string]struct{ one, name, reason string }{
	"person":   {"", "people", "none of the following"},
	"bot":      {"robot", "crawlers and robots", "they say so in their User-Agent"},
	"preview":  {"preview", "previews", "a messenger or network fetched a card for a post"},
	"prefetch": {"loaded ahead", "loaded ahead", "a browser loaded the page before anybody clicked"},
	"monitor":  {"monitor", "monitors", "a program that checks whether the link works"},
	"tool":     {"tool", "tools", "an HTTP library or a command, such as curl"},
	"empty":    {"nameless", "nameless", "no User-Agent at all, which every browser sends"},
}

// kindNames are the words for the kind of one click, in JSON for live.js.
var kindNames = func() string {
	names := map[string]string{}
	for kind, words := range kinds {
		names[kind] = words.one
	}
	text, err := json.Marshal(names)
	if err != nil {
		panic(err) // never: texts only
	}
	return string(text)
}()

// kindReason says why a click is of a kind.
func kindReason(kind string) string { return kinds[kind].reason }
