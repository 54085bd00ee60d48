package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// fileOf writes a file that a person has.
func fileOf(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../examples/" + name)
	must(t, err)
	return path
}

// outcome waits until the import on the page has ended so, and has these counts.
func (b *browser) outcome(state string, counts string) {
	b.t.Helper()
	b.waitFor("it is "+state, fmt.Sprintf(`document.querySelector("#state .state")?.innerText === %q`, state))
	b.waitFor("its counts", fmt.Sprintf(`[...document.querySelectorAll(".outcomes div")].map((d) => d.innerText.replace(/\s+/g, " ")).join(", ") === %q`, counts))
}

// drop drops a file on the page.
func (b *browser) drop(name, path string) {
	b.t.Helper()
	content, err := os.ReadFile(path)
	must(b.t, err)
	b.do("drop "+name, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`{
		const dataTransfer = new DataTransfer();
		dataTransfer.items.add(new File([%q], %q, { type: "text/csv" }));
		for (const type of ["dragover", "drop"]) document.querySelector(".drop").dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer }));
	}`, content, name)))
}

// The first-run tour: the three files in order, each tried first and then imported.
func TestTourOfImports(t *testing.T) { byMouseAndKeys(t, tourOfImports) }

func tourOfImports(s *server, b *browser) {
	t := b.t
	b.signIn(s)
	for n, file := range []struct{ name, found, trial, counts, next string }{
		{"users.csv", "40 rows looked at", "Imported 38, Rejected 2", "Imported 38, Rejected 2", "urls.csv"},
		{"urls.csv", "200 rows looked at", "Imported 195, Rejected 5", "Imported 195, Rejected 5", "events.csv"},
		{"events.csv", "400 rows looked at", "Imported 383, Rejected 17", "Imported 383, Rejected 17", ""},
	} {
		b.press(`nav a[href="/app/imports"]`)
		b.waitFor("which is next", fmt.Sprintf(`document.querySelector("[aria-current=step] a").innerText === %q`, file.name))
		switch {
		case n == 0: // the page has them
			b.press("[aria-current=step] a")
		case n == 1 && !b.keys:
			b.drop(file.name, example(t, file.name))
		default:
			b.chooseFile("#file", example(t, file.name))
		}
		b.waitForText(file.found)
		b.waitFor("its kind", fmt.Sprintf(`document.querySelector("#kind").value + ".csv" === %q && document.querySelector("[name=dry_run]").checked`, file.name))
		b.press("#options .end button")
		b.outcome("completed", file.trial)
		b.waitForText("Nothing has been changed")
		b.do("need not choose it again", chromedp.WaitNotVisible(chromedp.CSS(".again .drop")))
		b.press(".again .end button")
		b.waitFor("another import", fmt.Sprintf(`location.pathname === "/app/imports/%d"`, 2*n+2))
		b.outcome("completed", file.counts)
	}
	b.press(`nav a[href="/app/imports"]`)
	b.waitFor("all six", `document.querySelectorAll(".imports tbody tr").length === 6 && !document.querySelector(".tour")`)
	b.press(`nav a[href="/app/links"]`)
	b.waitFor("the links", `document.querySelectorAll("table.links tbody tr").length === 25`)
	b.silent()
}

// Rejected rows are downloaded, mended and uploaded.
func TestMendRejectedRows(t *testing.T) { byMouseAndKeys(t, mendRejectedRows) }

func mendRejectedRows(s *server, b *browser) {
	t := b.t
	b.signIn(s)
	b.press(`nav a[href="/app/imports"]`)
	b.chooseFile("#file", fileOf(t, "people.csv", "Name;Mail\nann;ann@example.com\nbob;bob at example.com\ncy;cy@example.com\n"))
	b.waitForText("the first line names no column of urls")
	b.choose("#kind", "users")
	b.mapColumns("Name:username", "Mail:email")
	b.waitForText("3 rows looked at, 1 wrong")
	b.press("[name=dry_run]") // no trial
	b.press("#options .end button")
	b.outcome("completed", "Imported 2, Rejected 1")

	mended := b.evaluate(`(() => { const r = new XMLHttpRequest(); r.open("GET", document.querySelector("a[download][href$='errors.csv']").href, false); r.send(); return r.responseText; })()`)
	if !strings.Contains(mended, "line,reason,Name,Mail\n3,") {
		t.Fatalf("the file to mend is %q", mended)
	}
	b.press(`.report a[href*="mapping="]:not([data-again])`)
	b.chooseFile("#file", fileOf(t, "mended.csv", strings.Replace(mended, "bob at example", "bob@example", 1)))
	b.waitForText("1 row looked at")
	b.press("#options .end button")
	b.outcome("completed", "Imported 1, Rejected 0")
	b.silent("400 (Bad Request)")
}

// An upload is cancelled on its way, an import while it runs, and one is undone.
func TestCancelAndUndo(t *testing.T) { byMouseAndKeys(t, cancelAndUndo) }

func cancelAndUndo(s *server, b *browser) {
	t := b.t
	b.signIn(s)
	var file strings.Builder
	file.WriteString("username,email\n")
	for n := range 400_000 {
		fmt.Fprintf(&file, "person%d,person%d@example.com\n", n, n)
	}
	many := fileOf(t, "many.csv", file.String())
	choose := func(path string) {
		b.t.Helper()
		b.press(`nav a[href="/app/imports"]`)
		b.chooseFile("#file", path)
		b.waitForText("rows looked at")
		b.press("[name=dry_run]") // no trial
		b.press("#options .end button")
	}
	b.slow(1 << 20)
	choose(many)
	b.press("[data-cancel]")
	b.waitForText("The upload was cancelled.")
	b.slow(0)
	choose(many)
	b.waitFor("it runs", `document.querySelector("#state .state")?.innerText === "running"`)
	b.press(`form[action$="/cancel"] button`)
	b.waitFor("it is cancelled", `document.querySelector("#state .state")?.innerText === "cancelled"`)
	b.waitForText("It was cancelled after")

	choose(fileOf(t, "two.csv", "username,email\nann,ann@example.com\nbob,bob@example.com\n"))
	b.outcome("completed", "Imported 2, Rejected 0")
	b.press(`a[href$="/undo"]`)
	b.waitForText("2 users go.")
	b.waitFor("the focus", `document.activeElement.innerText === "Undo"`)
	b.press("dialog button.bad")
	b.waitFor("it is undone", `document.querySelector("#state .state")?.innerText === "undone"`)
	b.waitForText("2 of 2 rows removed, 0 kept")
	b.silent()
}

func TestImportWithoutScripts(t *testing.T) {
	t.Parallel()
	s := start(t)
	b := newBrowser(t)
	b.withoutScripts()
	b.signInWith(s, s.token)
	send := func(path string) {
		b.t.Helper()
		b.do("send the file", chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{path}), chromedp.Click(chromedp.CSS("form[data-upload] .end button")))
	}
	b.do("open the imports", chromedp.Navigate(s.url+"/app/imports"), chromedp.SetValue(chromedp.CSS("#kind"), "urls"))
	send(example(t, "users.csv"))
	b.waitForText("this looks like a file of users")
	b.do("say what it is", chromedp.SetValue(chromedp.CSS("#kind"), "users"))
	send(example(t, "users.csv"))
	b.waitFor("the import", `location.pathname === "/app/imports/1"`)
	b.lookAgain(s.url+"/app/imports/1", `document.body.innerText.includes("Nothing has been changed")`)
	b.waitForText("38 would go in")
	b.waitForText("How its columns were read")
	send(example(t, "users.csv"))
	b.waitFor("the import", `location.pathname === "/app/imports/2"`)
	b.lookAgain(s.url+"/app/imports/2", `document.body.innerText.includes("38 of 40 rows are in")`)
	b.outcome("completed", "Imported 38, Rejected 2")
	b.silent("400 (Bad Request)")
}

// importFiles imports people, tries links and imports them, some of which are wrong. It
// returns the pages of the trial and of the last import.
func (s *server) importFiles() (trial, last string) {
	s.t.Helper()
	links := "original_url,user_id,short_code,title\nhttps://example.com/menu,1,menu,\"Our menu, as of \"\"today\"\"\"\nftp://example.com/old,1,old,An old one\nhttps://example.com/a/very/long/address/that/goes/on" +
		strings.Repeat("/and/on", 10) + ",99,long,Nobody's\nhttps://example.com/again,1,menu,Taken\nhttps://example.com/app,1,app,Reserved\n"
	const campaign = "links of the spring campaign.csv"
	for _, upload := range []struct{ query, name, file string }{
		{"kind=users", "people.csv", "username,email\nbob,bob@example.com\n"}, {"kind=urls&dry_run=true", campaign, links}, {"kind=urls", campaign, links},
	} {
		id := s.upload("/imports?"+upload.query, upload.name, upload.file)
		s.await("the import is completed", func() bool { return s.request("GET", fmt.Sprintf("/imports/%d", id), nil)["state"] == "completed" })
		trial, last = last, fmt.Sprintf("/app/imports/%d", id)
	}
	return trial, last
}

// previewOwnColumns chooses a file with columns of somebody's own, and says what they are.
func (b *browser) previewOwnColumns() {
	b.t.Helper()
	b.do("choose a file", chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{fileOf(b.t, "mine.csv",
		"Goes to,Name,Note\nhttps://example.com/menu,menu,\"Fish, chips\"\nftp://x,old,\nhttps://example.com/spring"+strings.Repeat("/and/on", 20)+",spring,Spring sale\n")}))
	b.mapColumns("Goes to:original_url", "Name:short_code")
	b.waitForText("3 rows looked at, 1 wrong")
}

// mapColumns says what the first columns of the file stand for.
func (b *browser) mapColumns(columns ...string) {
	b.t.Helper()
	for n, column := range columns {
		b.waitFor("the column", fmt.Sprintf(`document.querySelector("#map-%d option[value='%s']")`, n, column))
		b.choose(fmt.Sprintf("#map-%d", n), column)
		b.waitFor("it is kept", fmt.Sprintf(`document.querySelector("#map-%d").value === %q && document.querySelector(".found")`, n, column))
	}
}
