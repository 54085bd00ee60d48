// Package e2e uses the dashboard as people do: in a browser, on the real program. It is a
// module of its own, so that the program does not depend on what drives the browser.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long a page may take to show what is waited for.
const patience = 30 * time.Second

// personAgent is a browser of a person: the headless one says that it is a robot.
const personAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"

// program is the program under test. TestMain builds it.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "signpost-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	program = filepath.Join(dir, "signpost")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir, build.Stdout, build.Stderr = "..", os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		return 1
	}
	return m.Run()
}

// server is a running signpost dev with a data folder of its own.
type server struct {
	t       *testing.T
	url     string // of the API
	token   string
	signIn  string // the link that it has printed
	process *exec.Cmd
}

var (
	printedLink  = regexp.MustCompile(`dashboard\s+(\S+)/app/sign-in#(\S+)`)
	printedToken = regexp.MustCompile(`admin token\s+(\S+)`)
)

func start(t *testing.T) *server {
	t.Helper()
	// The account of Postgres has to reach its folder.
	dir, err := os.MkdirTemp("", "signpost-e2e-data")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	out := &output{written: make(chan struct{}, 1)}
	s := &server{t: t, process: exec.Command(program, "dev", "--data", dir)}
	s.process.Env = append(os.Environ(), "LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0")
	s.process.Stdout, s.process.Stderr = out, out
	must(t, s.process.Start())
	t.Cleanup(func() {
		_ = s.process.Process.Signal(syscall.SIGTERM)
		if err := s.process.Wait(); err != nil {
			t.Errorf("the program ended with %v: %s", err, out.text())
		}
	})
	deadline := time.After(time.Minute)
	for {
		text := out.text()
		link, token := printedLink.FindStringSubmatch(text), printedToken.FindStringSubmatch(text)
		if link != nil && token != nil {
			s.url, s.signIn, s.token = link[1], link[1]+"/app/sign-in#"+link[2], token[1]
			return s
		}
		select {
		case <-out.written:
		case <-deadline:
			t.Fatalf("the program has not started: %s", text)
		}
	}
}

// output is what a program has printed.
type output struct {
	mu      sync.Mutex
	all     strings.Builder
	written chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.written <- struct{}{}:
	default:
	}
	return o.all.Write(p)
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// browser is a browser with a profile of its own and one tab, or a further tab of it.
type browser struct {
	t     *testing.T
	ctx   context.Context
	plain bool // it runs no scripts
	keys  bool // it is used by the keyboard alone

	mu       sync.Mutex
	troubles []string // what the console said
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.NoSandbox, chromedp.WSURLReadTimeout(time.Minute), chromedp.UserAgent(personAgent), chromedp.WindowSize(1200, 900),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.UserDataDir(t.TempDir()))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	must(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	return watch(ctx, t)
}

// tab opens a further tab.
func (b *browser) tab() *browser {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	must(b.t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	return watch(ctx, b.t)
}

// watch collects what the console of a tab says.
func watch(ctx context.Context, t *testing.T) *browser {
	t.Helper()
	b := &browser{t: t, ctx: ctx}
	must(t, chromedp.Listen(ctx, func(ev any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			b.troubles = append(b.troubles, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError {
				b.troubles = append(b.troubles, e.Entry.Text+" "+e.Entry.URL)
			}
		}
	}))
	_, err := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	must(t, err)
	return b
}

// do does what a person does, each step within a time limit, and once the scripts of the
// page have run: a key or a click before that is lost, or leads elsewhere.
func (b *browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ready := `document.readyState === "complete"`
	if !b.plain {
		ready += ` && (!document.querySelector("script[type=module]") || document.documentElement.classList.contains("js"))`
	}
	for n, step := range steps {
		b.waitFor("the page is there", ready)
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		err := chromedp.Do(ctx, step)
		cancel()
		if err != nil {
			b.t.Fatalf("%s, step %d: %v\nthe page is %s", what, n+1, err, b.text())
		}
	}
}

// signIn signs in, and waits for the overview.
func (b *browser) signIn(s *server) {
	b.t.Helper()
	b.do("sign in", chromedp.Navigate(s.signIn))
	if b.plain {
		b.do("paste the link", chromedp.Click(chromedp.CSS("form summary")), chromedp.SendKeys(chromedp.CSS("#link"), s.signIn), chromedp.Click(chromedp.CSS("form.sheet .end button")))
	}
	b.waitFor("the overview", `location.pathname === "/app" && document.querySelector("h1")`)
}

// signInWith signs in with a token.
func (b *browser) signInWith(s *server, token string) {
	b.t.Helper()
	b.do("sign in", chromedp.Navigate(s.url+"/app/sign-in"), chromedp.SendKeys(chromedp.CSS("#token"), token), chromedp.Click(chromedp.CSS("form.sheet .end button")))
	b.waitFor("the overview", `location.pathname === "/app" && document.querySelector("h1")`)
}

// text returns what the page shows.
func (b *browser) text() string {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return text
}

// waitFor waits until an expression is true in the page. It asks from outside, so that it
// works in a page without scripts too.
func (b *browser) waitFor(what, expression string) {
	b.t.Helper()
	came := poll(b.ctx, patience, func(ctx context.Context) bool {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		return err == nil && ok
	})
	if !came {
		b.t.Fatalf("%s did not come true: %s\nthe page is %s", what, expression, b.text())
	}
}

// poll asks again and again until something holds. It returns false if that does not come
// true within the limit.
func poll(ctx context.Context, within time.Duration, holds func(context.Context) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// waitForText waits until the page shows a text.
func (b *browser) waitForText(text string) {
	b.t.Helper()
	b.waitFor(text, fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// lookAgain loads a page, which does not move by itself, until an expression is true in it.
func (b *browser) lookAgain(url, expression string) {
	b.t.Helper()
	came := poll(b.ctx, patience, func(context.Context) bool {
		b.do("look again", chromedp.Navigate(url))
		return b.evaluate("Boolean("+expression+")") == "true"
	})
	if !came {
		b.t.Fatalf("%s did not come true\nthe page is %s", expression, b.text())
	}
}

func (b *browser) evaluate(expression string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expression+")"))
	must(b.t, err)
	return text
}

// withoutScripts switches JavaScript off.
func (b *browser) withoutScripts() {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	must(b.t, err)
	b.plain = true
}

// view sets the width of the window and the colours.
func (b *browser) view(width int64, scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width < 500,
	})
	must(b.t, err)
	_, err = chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	must(b.t, err)
}

// silent fails the test if the console complained about anything, except for what has one
// of the texts in it.
func (b *browser) silent(except ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, trouble := range b.troubles {
		if !slices.ContainsFunc(except, func(text string) bool { return strings.Contains(trouble, text) }) {
			b.t.Error("the console says:", trouble)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
