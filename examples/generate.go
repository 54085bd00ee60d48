//go:build ignore

// Generate writes the example files and their README, the same ones byte for
// byte each time:
//
//	go run examples/generate.go [folder]
//
// The files look like a real export and hold its traps: users who take a name
// that is taken, links of those users, events of those links. People and paths
// are invented.
package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	users  = 40
	urls   = 200
	events = 400
)

// Users who repeat the name of an earlier one; case makes no difference.
var repeats = map[int]string{23: "mosslantern4", 36: "Dunefiddle11"}

// Links that belong to those users.
var orphans = map[int]int{31: 23, 58: 23, 112: 36, 146: 36, 187: 23}

var (
	first = []string{"moss", "dune", "fern", "pebble", "willow", "ember", "harbor", "juniper", "larch", "meadow"}
	last  = []string{"lantern", "fiddle", "walker", "kettle", "sparrow", "compass", "weaver", "harvest"}
	hosts = []string{"example.com", "www.example.com", "shop.example.org", "blog.example.org", "example.net"}
	paths = []string{"guides", "recipes", "walks", "notes", "offers", "letters", "maps", "workshops"}
	nouns = []string{"Garden plan", "Tide table", "Bread recipe", "Trail notes", "Winter sale", "Reading list", "Choir dates", "Repair guide"}
)

func main() {
	log.SetFlags(0)
	folder := "examples"
	if len(os.Args) > 1 {
		folder = os.Args[1]
	}
	g := generator{random: rand.NewPCG(1815, 1852)}
	for _, file := range []struct {
		name string
		data []byte
	}{
		{"users.csv", g.users()},
		{"urls.csv", g.urls()},
		{"events.csv", g.events()},
		{"README.md", g.readme()},
	} {
		if err := os.WriteFile(filepath.Join(folder, file.name), file.data, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// A generator remembers what the files that were written so far hold.
type generator struct {
	random   *rand.PCG
	owners   [urls + 1]int
	codes    [urls + 1]string
	targets  [urls + 1]string
	created  [urls + 1]time.Time
	inactive int
	rejected []rejection
	months   map[string]bool
	kinds    map[string]int
}

// A rejection is a row that a correct import refuses.
type rejection struct {
	file         string
	line         int
	field, about string
}

// below draws from 0 to n-1. The small bias makes no difference here, and the
// numbers are the same in every release of Go.
func (g *generator) below(n int) int { return int(g.random.Uint64() % uint64(n)) }

func (g *generator) pick(list []string) string { return list[g.below(len(list))] }

func (g *generator) reject(file string, line int, field, about string) {
	g.rejected = append(g.rejected, rejection{file, line, field, about})
}

// between draws a second from from, included, to to, excluded.
func (g *generator) between(from, to time.Time) time.Time {
	return from.Add(time.Duration(g.below(int(to.Sub(from)/time.Second))) * time.Second)
}

func day(year int, month time.Month, day int) time.Time {
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

func stamp(t time.Time) string { return t.Format(time.DateTime) }

func write(rows [][]string) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	if err := w.WriteAll(rows); err != nil {
		log.Fatal(err)
	}
	return b.Bytes()
}

func (g *generator) users() []byte {
	rows := [][]string{{"id", "username", "email", "created_at"}}
	for id := 1; id <= users; id++ {
		// Every pair of words appears once, so that only repeats repeat.
		name := first[(id-1)%len(first)] + last[(id-1)/len(first)*2%len(last)+(id%2)] + strconv.Itoa(id*7%13+id%3)
		switch id {
		case 4:
			name = "mosslantern4"
		case 15:
			name = "dunefiddle11"
		}
		email := fmt.Sprintf("%s.%d@example.com", name, id)
		if taken, ok := repeats[id]; ok {
			name = taken
			email = fmt.Sprintf("second.%d@example.org", id)
			g.reject("users.csv", id+1, "username", fmt.Sprintf("`%s` is taken by an earlier row", taken))
		}
		rows = append(rows, []string{strconv.Itoa(id), name, email, stamp(g.between(day(2024, 3, 1), day(2024, 12, 20)))})
	}
	return write(rows)
}

func (g *generator) urls() []byte {
	rows := [][]string{{"id", "user_id", "short_code", "original_url", "title", "is_active", "created_at", "updated_at"}}
	for id := 1; id <= urls; id++ {
		g.owners[id] = g.owner(id)
		g.codes[id] = g.code(id)
		g.targets[id] = fmt.Sprintf("https://%s/%s/%d", g.pick(hosts), g.pick(paths), 1000+id)
		g.created[id] = g.between(day(2025, 1, 1), day(2025, 12, 15))
		active := "True"
		if g.below(5) == 0 {
			active = "False"
			g.inactive++
		}
		rows = append(rows, []string{
			strconv.Itoa(id), strconv.Itoa(g.owners[id]), g.codes[id], g.targets[id], g.title(id), active,
			stamp(g.created[id]), stamp(g.between(g.created[id], day(2026, 2, 20))),
		})
	}
	return write(rows)
}

// owner draws the owner of link id: one of the users whose rows are right,
// but for the orphans.
func (g *generator) owner(id int) int {
	if owner, ok := orphans[id]; ok {
		return owner
	}
	for {
		owner := 1 + g.below(users)
		if _, rejected := repeats[owner]; !rejected {
			return owner
		}
	}
}

// code makes the code of link id. The last two characters tell ids apart.
func (g *generator) code(id int) string {
	const letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	code := make([]byte, 0, 6)
	for range 4 {
		code = append(code, letters[g.below(len(letters))])
	}
	return string(append(code, letters[id/len(letters)], letters[id%len(letters)]))
}

// title has something to quote now and then: a comma, quotes, a line break.
func (g *generator) title(id int) string {
	title := g.pick(nouns)
	switch {
	case id%40 == 7:
		return title + ",\npart " + strconv.Itoa(id%5+1)
	case id%25 == 3:
		return `The "` + title + `", annotated`
	case id%9 == 0:
		return title + ", revised"
	}
	return title
}

func (g *generator) events() []byte {
	rows := [][]string{{"id", "url_id", "user_id", "event_type", "timestamp", "details"}}
	g.months, g.kinds = map[string]bool{}, map[string]int{}
	for id := 1; id <= events; id++ {
		url, kind, at := id, "created", time.Time{}
		var details any
		if id <= urls {
			at = g.created[url]
			details = map[string]string{"short_code": g.codes[url], "original_url": g.targets[url]}
		} else {
			url = 1 + g.below(urls)
			at = g.between(g.created[url], day(2026, 2, 25))
			kind, details = g.later()
		}
		user := g.owners[url]
		if id%67 == 0 {
			user = 36 // someone who is not there acts on another's link
		}
		g.count(id+1, url, user, kind, at)
		rows = append(rows, []string{
			strconv.Itoa(id), strconv.Itoa(url), strconv.Itoa(user), kind, stamp(at), compact(details),
		})
	}
	return write(rows)
}

// later draws what happens to a link after its creation.
func (g *generator) later() (kind string, details any) {
	switch n := g.below(20); {
	case n < 11:
		return "clicked", map[string]string{
			"referrer": "https://" + g.pick(hosts) + "/", "browser": g.pick([]string{"Firefox", "Chrome", "Safari"}),
			"device": g.pick([]string{"desktop", "phone", "tablet"}),
		}
	case n < 18:
		return "updated", map[string]string{"field": "title", "new_value": g.pick(nouns) + ", again"}
	}
	return "deleted", map[string]string{"reason": g.pick([]string{"duplicate", "outdated"})}
}

// count notes what a correct import makes of an event.
func (g *generator) count(line, url, user int, kind string, at time.Time) {
	if _, orphan := orphans[url]; orphan {
		g.reject("events.csv", line, "url_id", fmt.Sprintf("link %d was rejected", url))
		return
	}
	if _, rejected := repeats[user]; rejected {
		g.reject("events.csv", line, "user_id", fmt.Sprintf("user %d was rejected", user))
		return
	}
	g.months[at.Format("2006-01")] = true
	g.kinds[kind]++
}

func compact(details any) string {
	data, err := json.Marshal(details) // of a map: keys in order
	if err != nil {
		log.Fatal(err)
	}
	return string(data)
}

const readme = `# Examples

Small files to try an import with. They are written by ` + "`go run examples/generate.go`" + `; people, links and clicks are invented.
Load them in this order, since each refers to the ids of the one before:

| file | rows | imported | rejected |
|---|---|---|---|
%s
%d of all %d links are inactive. The imported events are of %d months, from %s to %s: %s.

Line numbers count the header as line 1. A record may go over several lines (some titles do): its number is the line it begins on. Line breaks within a title become a space. Booleans are ` + "`True` and `False`" + `, times have no zone and are read as UTC, ` + "`details`" + ` is JSON inside a quoted field.

## What is rejected, and why

| file | line | field | reason |
|---|---|---|---|
%s
Loading a file again imports nothing twice: each row is rejected, and the reason names what is taken.
`

func (g *generator) readme() []byte {
	g.rejectOrphans()
	count := map[string]int{}
	var reasons strings.Builder
	for _, file := range []string{"users.csv", "urls.csv", "events.csv"} {
		for _, r := range g.rejected {
			if r.file == file {
				count[file]++
				fmt.Fprintf(&reasons, "| %s | %d | `%s` | %s |\n", r.file, r.line, r.field, r.about)
			}
		}
	}
	var table strings.Builder
	for _, file := range []struct {
		name string
		rows int
	}{{"users.csv", users}, {"urls.csv", urls}, {"events.csv", events}} {
		fmt.Fprintf(&table, "| `%s` | %d | %d | %d |\n", file.name, file.rows, file.rows-count[file.name], count[file.name])
	}
	from, to := "9999", ""
	for month := range g.months {
		from, to = min(from, month), max(to, month)
	}
	kinds := fmt.Sprintf("%d created, %d updated, %d deleted, %d clicked",
		g.kinds["created"], g.kinds["updated"], g.kinds["deleted"], g.kinds["clicked"])
	return fmt.Appendf(nil, readme, table.String(), g.inactive, urls, len(g.months), from, to, kinds, reasons.String())
}

// rejectOrphans finds the lines of the orphans, which titles of several lines
// before them move.
func (g *generator) rejectOrphans() {
	line := 2
	for id := 1; id <= urls; id++ {
		if owner, ok := orphans[id]; ok {
			g.reject("urls.csv", line, "user_id", fmt.Sprintf("user %d was rejected", owner))
		}
		line++
		if id%40 == 7 {
			line++
		}
	}
}
