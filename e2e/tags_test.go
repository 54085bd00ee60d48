package e2e

import (
	"bytes"
	"context"
	"fmt"
	"image"
	_ "image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

func TestChangeALinkAndPutItBack(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	b := newBrowser(t)
	b.signIn(s)
	b.do("open a link", chromedp.Navigate(s.url+"/app/links/1"))
	for _, title := range []string{"first title", "second title"} {
		b.do("edit it", chromedp.Click(chromedp.CSS(`.actions a[href$="/edit"]`)), chromedp.WaitVisible(chromedp.CSS("dialog[open] #title")),
			chromedp.SetValue(chromedp.CSS("dialog #title"), title), chromedp.Click(chromedp.CSS("dialog .end button")))
		b.waitFor("the title", fmt.Sprintf(`!document.querySelector("dialog[open]") && document.querySelector("p.title")?.innerText === %q`, title))
	}
	b.waitFor("two changes", `document.querySelectorAll("#history form").length === 2`)
	b.waitFor("the last one", `/title\s+first title → second title/.test(document.querySelector("#history li").innerText)`)

	// The older one is not the last word on the title.
	b.do("put the first change back", chromedp.Click(chromedp.CSS("#history li:nth-child(2) button")))
	b.waitForText("It was changed again since")
	b.waitFor("what it would overwrite", `/title\s+second title → spring sale/.test(document.querySelector(".changes").innerText)`)
	b.do("go on", chromedp.Click(chromedp.CSS("form.sheet .end button")))
	b.waitForText("The change is put back.")
	b.waitFor("the title", `document.querySelector("p.title").innerText === "spring sale"`)
	b.waitFor("a third change", `document.querySelectorAll("#history form").length === 3`)
	b.do("put that back", chromedp.Click(chromedp.CSS("#history li:first-child button")))
	b.waitFor("the title", `document.querySelector("p.title").innerText === "second title"`)
	b.silent("409 (Conflict)") // the question
}

func TestColorsOfAQRCode(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	b := newBrowser(t)
	b.signIn(s)
	b.do("open the code of a link", chromedp.Navigate(s.url+"/app/links/1"), chromedp.Click(chromedp.CSS(`.actions a[href$="/qr"]`)))
	b.waitFor("the picture and the scripts", `document.querySelector("#code img").naturalWidth > 0 && document.documentElement.classList.contains("js")`)
	b.do("mark the page", chromedp.SetAttributeValue(chromedp.CSS("body"), "data-same", "yes"))
	pick := func(field, value string) {
		b.evaluate(fmt.Sprintf(`(() => { const field = document.getElementById(%q); field.value = %q; field.dispatchEvent(new Event("input", { bubbles: true })); })()`, field, value))
	}
	pick("foreground", "#eeeeee")
	b.waitFor("the fault", `document.querySelector("#foreground-fault")?.innerText.includes("much darker") && !document.querySelector("#code img")`)
	pick("foreground", "#003366")
	b.waitFor("a blue picture", `document.querySelector("#code img")?.src.includes("003366") && !document.querySelector("#foreground-fault")`)
	b.do("leave the mark out", chromedp.Click(chromedp.CSS("input[type=checkbox]")))
	b.waitFor("the plain address", `document.querySelector("#code .target").innerText.endsWith("/code1")`)
	if b.evaluate("document.body.dataset.same") != "yes" {
		t.Error("the page was loaded anew")
	}

	folder := t.TempDir()
	_, err := chromedp.Call(b.ctx, cdpbrowser.SetDownloadBehavior, cdpbrowser.SetDownloadBehaviorParams{Behavior: "allow", DownloadPath: folder})
	must(t, err)
	b.do("download it", chromedp.Click(chromedp.CSS(`a[download$=".png"]`)))
	b.do("download the other", chromedp.Click(chromedp.CSS(`a[download$=".svg"]`)))
	png, svg := awaitFile(t, filepath.Join(folder, "code1.png")), awaitFile(t, filepath.Join(folder, "code1.svg"))
	if !strings.Contains(string(svg), `fill="#003366"`) {
		t.Errorf("the SVG is %s", svg)
	}
	picture, _, err := image.Decode(bytes.NewReader(png))
	must(t, err)
	bitmap, err := gozxing.NewBinaryBitmapFromImage(picture)
	must(t, err)
	read, err := qrcode.NewQRCodeReader().Decode(bitmap, nil)
	must(t, err)
	if short := s.request("GET", "/urls/1", nil)["short_url"]; read.GetText() != short {
		t.Errorf("the code holds %s, and the link is %s", read.GetText(), short)
	}
	b.silent("400 (Bad Request)") // the light color
}

// awaitFile waits for a file that a browser downloads, which has its name only when it is
// whole.
func awaitFile(t *testing.T, name string) []byte {
	t.Helper()
	var content []byte
	came := poll(t.Context(), patience, func(context.Context) (there bool) {
		content, _ = os.ReadFile(name)
		return len(content) > 0
	})
	if !came {
		t.Fatalf("%s was not downloaded", name)
	}
	return content
}

func (s *server) tagged(user any, count int, tags ...string) {
	s.t.Helper()
	for range count {
		s.post("/urls", map[string]any{"user_id": user, "original_url": "https://example.com/", "tags": tags})
	}
}

// The whole of it by keys.
func TestRenameAndMergeTags(t *testing.T) {
	t.Parallel()
	s := start(t)
	user := s.post("/users", map[string]any{"username": "ann", "email": "ann@example.com"})["id"]
	s.tagged(user, 50, "sale", "spring")
	s.tagged(user, 10, "deal")
	b := newBrowser(t)
	b.signIn(s)
	b.tabTo(`nav a[href="/app/tags"]`)
	b.do("go there", chromedp.KeyEvent(kb.Enter))
	b.waitFor("three tags", `document.querySelectorAll("tbody tr").length === 3`)

	b.tabTo(`a[aria-label="Edit sale"]`)
	b.do("edit it", chromedp.KeyEvent(kb.Enter))
	b.waitFor("the dialog", `document.activeElement.matches("dialog #name")`)
	b.write("offer")
	b.tabTo(`dialog input[type=radio]`)
	b.do("choose the color red", chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.Enter))
	b.waitForText("The tag is changed.")
	b.waitFor("it has another name and color", `/offer\s+50 links/.test(document.querySelector("tbody").innerText) && document.querySelector(".tag.red").innerText === "offer"`)

	b.tabTo(`a[aria-label="Edit deal"]`)
	b.do("edit it", chromedp.KeyEvent(kb.Enter))
	b.waitFor("the dialog", `document.activeElement.matches("dialog #name")`)
	b.write("offer")
	b.do("save", chromedp.KeyEvent(kb.Enter))
	b.waitForText("is a tag already, with 50 links")
	b.tabTo("dialog input[name=merge]")
	b.do("say that they are to be merged", chromedp.KeyEvent(" "), chromedp.KeyEvent(kb.Enter))
	b.waitFor("one tag", `document.querySelectorAll("tbody tr").length === 2 && /offer\s+60 links/.test(document.querySelector("tbody").innerText)`)

	b.tabTo(`td a[href="/app/links?tag=offer"]`)
	b.do("see its links", chromedp.KeyEvent(kb.Enter))
	b.waitFor("the links", `location.search === "?tag=offer" && document.querySelectorAll("tbody .tag.red").length === 25`)
	b.silent("409 (Conflict)")
}

func TestTagsHistoryAndQRWithoutScripts(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill()
	b := newBrowser(t)
	b.withoutScripts()
	b.signInWith(s, s.token)
	b.do("edit a tag", chromedp.Navigate(s.url+"/app/tags"), chromedp.Click(chromedp.CSS(`a[aria-label="Edit sale"]`)), chromedp.WaitVisible(chromedp.CSS("#name")),
		chromedp.SetValue(chromedp.CSS("#name"), "offer"), chromedp.Click(chromedp.CSS(`input[value=teal]`)), chromedp.Click(chromedp.CSS("form.sheet .end button")))
	b.waitForText("The tag is changed.")
	b.waitForText("3 links")
	b.do("delete it", chromedp.Click(chromedp.CSS(`a[aria-label="Delete offer"]`)))
	b.waitForText("It is taken off 3 links.")
	b.do("confirm", chromedp.Click(chromedp.CSS("button.bad")))
	b.waitForText("The tag is deleted.")
	b.do("look at a link", chromedp.Navigate(s.url+"/app/links/1"))
	b.waitFor("its history", `/offer → none[^]*sale → offer/.test(document.querySelector("#history").innerText)`)
	b.do("put the last change back", chromedp.Click(chromedp.CSS("#history button")))
	b.waitForText("The change is put back.")
	b.waitFor("the tag", `document.querySelector("#about .tag").innerText === "offer"`)
	b.do("open its code", chromedp.Click(chromedp.CSS(`.actions a[href$="/qr"]`)))
	b.waitForText("Size in pixels")
	b.do("draw a code", chromedp.SetValue(chromedp.CSS("#size"), "300"), chromedp.Click(chromedp.CSS("form.panel .end button")))
	b.waitFor("the picture", `document.querySelector("#code img").naturalWidth === 300 && location.search.includes("size=300")`)
	b.do("ask for too much", chromedp.SetValue(chromedp.CSS("#size"), "30000"), chromedp.Click(chromedp.CSS("form.panel .end button")))
	b.waitFor("the fault", `document.querySelector("#size-fault").innerText.includes("from 16 to 2048")`)
	b.silent("400 (Bad Request)")
}
