package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"mime"
	"net/http"
	"strings"
	"time"
)

// weeks makes links on go.example with clicks of eight weeks, as a small company would have
// them, and one of today. Link 3 has none and a long title, and link 8 is on the main domain.
func (s *server) weeks() {
	s.t.Helper()
	user := s.post("/users", map[string]any{"username": "ann", "email": "ann@example.com"})
	s.post("/domains", map[string]any{"host": "go.example", "root_url": "https://www.example.com/"})
	for _, l := range []struct {
		code, title string
		tags        []string
	}{
		{"spring", "Spring sale", []string{"sale", "newsletter"}},
		{"menu", "Menu of the week", []string{"restaurant"}},
		{"walks", "Autumn walks" + strings.Repeat(" along rivers and over hills", 8), []string{"sale"}},
		{"tickets", "Tickets for the concert", []string{"events", "newsletter"}},
		{"podcast", "The podcast, episode 12", []string{}},
		{"jobs", "We are hiring", []string{"company"}},
		{"map", "How to find us", []string{"restaurant", "events"}},
	} {
		s.post("/urls", map[string]any{
			"user_id": user["id"], "domain": "go.example", "short_code": l.code, "title": l.title, "tags": l.tags,
			"original_url": "https://www.example.com/" + l.code + "?utm_source=poster&utm_campaign=" + l.code,
		})
	}
	s.post("/urls", map[string]any{"user_id": user["id"], "short_code": "code3", "original_url": "https://www.example.com/"})
	s.request("PATCH", "/tags/sale", map[string]any{"color": "red"})
	s.request("PATCH", "/tags/events", map[string]any{"color": "blue"})
	id := s.upload("/imports?kind=events", "clicks.csv", clicksOfWeeks())
	s.await("the clicks are imported", func() bool {
		return s.request("GET", fmt.Sprintf("/imports/%d", id), nil)["state"] == "completed" && s.request("GET", "/stats?range=30d", nil)["pending"] == 0.0
	})
	for n := range 8 {
		s.visit("go.example", []string{"spring", "menu", "tickets"}[n%3], n)
	}
}

// clicksOfWeeks returns clicks as a file, fewer on weekends, and more each week.
func clicksOfWeeks() string {
	const clicked = `%d,%d,1,clicked,%s,"{""referrer"": ""%s"", ""browser"": ""%s"", ""os"": ""%s"", ""device"": ""%s"", ""country"": ""%s"", ""kind"": ""%s"", ""trigger"": ""%s""}"` + "\n"
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[min(int(rnd.ExpFloat64()*float64(len(of))/3), len(of)-1)] }
	var file strings.Builder
	file.WriteString("id,url_id,user_id,event_type,timestamp,details\n")
	today, id := time.Now().UTC().Truncate(24*time.Hour), 1000
	for day := range 56 {
		at := today.AddDate(0, 0, day-56)
		n := 25 + day + rnd.IntN(20)
		if weekday := at.Weekday(); weekday == time.Saturday || weekday == time.Sunday {
			n /= 2
		}
		for range n {
			id++
			system := pick("iOS", "Android", "Windows", "macOS", "Linux")
			device := "desktop"
			if system == "iOS" || system == "Android" {
				device = "mobile"
			}
			kind := "person"
			if rnd.IntN(9) == 0 {
				kind = pick("bot", "preview", "monitor", "tool")
			}
			fmt.Fprintf(&file, clicked, id, []int{1, 1, 1, 4, 4, 2, 2, 5, 6, 7}[rnd.IntN(10)], at.Add(time.Duration(7*3600+rnd.IntN(15*3600))*time.Second).Format("2006-01-02 15:04:05"),
				pick("news.example", "", "search.example", "social.example", "mail.example", "blog.example"), pick("Chrome", "Safari", "Firefox", "Edge"), system, device,
				pick("DE", "US", "GB", "FR", "NL", "AT", "CH", "JP"), kind, pick("link", "link", "qr"))
		}
	}
	return file.String()
}

// upload sends a file with a name, and returns the number of the import.
func (s *server) upload(path, name, file string) int {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+path, strings.NewReader(file))
	must(s.t, err)
	req.Header.Set("Content-Type", "text/csv")
	req.Header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	return int(s.send(req)["id"].(float64))
}

// await waits until something holds.
func (s *server) await(what string, holds func() bool) {
	s.t.Helper()
	if !poll(s.t.Context(), time.Minute, func(context.Context) bool { return holds() }) {
		s.t.Fatalf("%s: not within a minute", what)
	}
}
