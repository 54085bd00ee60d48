package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
)

// attacks is the table of contents of the attacks.
func (s *system) attacks() []attack {
	docs := 10
	if !s.short {
		docs = 100
	}
	var errorsPage string // of the import with the biggest rejected rows
	return []attack{
		{name: "silent connections of one address", run: s.silent("127.0.0.2")},
		{name: "silent connections of four addresses", run: s.silent("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")},
		{name: "searches for two letters", run: s.readers("/urls?search=qq")},
		{name: "lists of a locked table", run: s.locked},
		{
			name: "pages of rejected rows, not read", fresh: true,
			prepare: func(ctx context.Context) (err error) { errorsPage, err = s.importRejected(ctx); return err },
			run:     func(ctx context.Context, f *findings) error { return s.stalled(ctx, f, 60, errorsPage, s.reader) },
		},
		{name: "lists of imports with 9,000 columns", fresh: true, prepare: s.importColumns, run: s.readers("/imports?limit=100")},
		{name: "a large file of the documentation", fresh: true, run: s.docs(docs), judge: docsCost},
		{
			name: "the same, not read", fresh: true,
			run: func(ctx context.Context, f *findings) error { return s.stalled(ctx, f, s.tooMany(), docsFile, "") },
		},
		{name: "trickling uploads and exports", fresh: true, run: s.trickle, lasts: s.trickleFor(), once: true},
		{name: "watchers that hang up", run: s.watchers, lasts: max(s.lasts, 8*time.Second), once: true},
		{name: "statistics of everything", run: s.readers(statisticsPaths()...), judge: onlyRefused},
		{name: "listeners that do not read", run: s.listeners, lasts: max(s.lasts, 8*time.Second), once: true},
		{name: "unknown codes on 1,000 connections", run: s.unknown, judge: func(r *result) {
			if p50 := r.uncached.Percentile(50); p50 > s.slowest {
				r.breaks("p50 of redirects that are not cached is %s, more than %s", short(p50), s.slowest)
			}
		}},
		{name: "wrong tokens, all at once", run: s.guess, once: true},
	}
}

// tooMany are half as many connections more as the api may have files.
func (s *system) tooMany() int { return s.files + s.files/2 }

// silent opens too many connections, and sends nothing over them. One that is
// closed is opened again a few seconds later.
func (s *system) silent(from ...string) func(context.Context, *findings) error {
	return func(ctx context.Context, f *findings) error {
		var wg sync.WaitGroup
		n := s.tooMany()
		for i := range n {
			wg.Go(func() {
				s.inTurn(ctx, i, n)
				for ctx.Err() == nil {
					c, err := drive.DialFrom(from[i%len(from)], s.api.Addr)
					if err == nil {
						untilClosed(ctx, c)
					}
					drive.Pause(ctx, 4*time.Second)
				}
			})
		}
		wg.Wait()
		return nil
	}
}

// inTurn lets n attackers begin one after the other, all within half of an attack:
// if all began at once, they alone would take the machine from redirects.
func (s *system) inTurn(ctx context.Context, i, n int) {
	drive.Pause(ctx, s.lasts/2*time.Duration(i)/time.Duration(n))
}

// untilClosed waits until the server closes a connection or ctx ends, and closes it.
func untilClosed(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close() // if it was not
}

// readers has twenty clients ask for lists in turn, each again a fifth of a second after
// it was answered. Meanwhile the api has to be ready.
func (s *system) readers(paths ...string) func(context.Context, *findings) error {
	return func(ctx context.Context, f *findings) error {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for ; ctx.Err() == nil; i++ {
					path := paths[i%len(paths)]
					status, _, err := drive.Client{Addr: s.api.Addr, Token: s.reader}.Send(ctx, http.MethodGet, path, "", nil)
					if err == nil {
						f.answered(status, 1)
					}
					drive.Pause(ctx, 200*time.Millisecond)
				}
			})
		}
		s.untilNotReady(ctx, f)
		wg.Wait()
		return nil
	}
}

// untilNotReady asks again and again whether the api is ready, as a load balancer does.
func (s *system) untilNotReady(ctx context.Context, f *findings) {
	for ctx.Err() == nil {
		if err := drive.Ready(ctx, s.api.Addr); err != nil && ctx.Err() == nil {
			f.breaks("the api is not ready: %v", err)
		}
		drive.Pause(ctx, 250*time.Millisecond)
	}
}

// locked has readers of a table that is locked.
func (s *system) locked(ctx context.Context, f *findings) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // done with it
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	if _, err := tx.Exec(ctx, "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"); err != nil {
		return err
	}
	return s.readers("/users")(ctx, f)
}

// statisticsPaths are questions that cost much, and some that make no sense.
func statisticsPaths() []string {
	const all = "breakdowns=kinds,countries,referrers,browsers,systems,devices,triggers&top=200"
	return []string{
		"/stats?range=12mo&interval=hour&tz=Asia/Kathmandu&compare=year&" + all,
		"/stats?range=all&interval=month&" + all,
		"/stats?range=12mo&country=DE&browser=-Firefox&compare=previous&" + all, // reads single clicks
		"/urls/1/stats?from=2000-01-01&interval=month&tz=Pacific/Apia&" + all,
		"/stats/referrers?range=12mo&sort=value&limit=100&tz=Australia/Lord_Howe",
		"/stats/links?range=12mo&sort=clicks&limit=100&tz=America/St_Johns",
		"/stats/links?range=12mo&country=DE&device=mobile",
		"/stats/links?range=12mo&format=csv&tz=Asia/Kathmandu",
		"/stats/tags?range=12mo", "/stats/domains?range=12mo",
		"/stats?range=12mo&interval=15m",
		"/stats?tz=../../etc/passwd", "/stats?tz=" + strings.Repeat("A", 4000), "/stats?tz=%00&from=%ff",
		"/stats?referrer=" + strings.Repeat("x,", 2000) + "x",
	}
}

// onlyRefused holds that questions of attackers were answered or refused, and did not
// fail.
func onlyRefused(r *result) {
	if r.answers[http.StatusOK] == 0 {
		r.breaks("nothing was answered")
	}
	for status, n := range r.answers {
		if status >= 500 && status != http.StatusServiceUnavailable {
			r.breaks("%d questions were answered %d", n, status)
		}
	}
}

// imported imports a file, waits for its end, and returns the path of the import.
func (s *system) imported(ctx context.Context, kind string, file io.Reader) (string, error) {
	id, err := s.admin().Upload(ctx, kind, file)
	if err != nil {
		return "", err
	}
	path := fmt.Sprintf("/imports/%d", id)
	return path, drive.Until(ctx, time.Minute, 100*time.Millisecond, func(ctx context.Context) error {
		var got struct {
			FinishedAt *time.Time `json:"finished_at"`
		}
		err := s.admin().Get(ctx, path, &got)
		if err == nil && got.FinishedAt == nil {
			err = fmt.Errorf("import %d does not end", id)
		}
		return err
	})
}

// importRejected imports a file whose last rows are rejected and as large as
// rejected rows may be, and returns the path of the page that has them.
func (s *system) importRejected(ctx context.Context) (string, error) {
	var file bytes.Buffer
	file.WriteString("username,email\n")
	for n := range 5000 { // so that its beginning is a CSV file's
		fmt.Fprintf(&file, "dull%d,dull%d@example.org\n", n, n)
	}
	for range 120 {
		file.WriteString(strings.Repeat("\x01", 65_400) + ",no address\n")
	}
	path, err := s.imported(ctx, "users", &file)
	return path + "/errors?limit=100", err
}

// importColumns makes a hundred imports whose files have 9,000 columns that
// Signpost does not know.
func (s *system) importColumns(ctx context.Context) error {
	header := "username,email"
	for n := range 9000 {
		header += fmt.Sprintf(",x%d", n)
	}
	for range 100 {
		if _, err := s.admin().Upload(ctx, "users", strings.NewReader(header+"\nno,no\n")); err != nil {
			return err
		}
	}
	return nil
}

// stalled has n clients that ask for something and read nothing of it, from four
// addresses. One that is cut off asks again.
func (s *system) stalled(ctx context.Context, _ *findings, n int, path, token string) error {
	request := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n"
	if token != "" {
		request += "Authorization: Bearer " + token + "\r\n"
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s.inTurn(ctx, i, n)
			for ctx.Err() == nil {
				c, err := slow(fmt.Sprintf("127.0.0.%d", 2+i%4), s.api.Addr)
				if err == nil {
					_, _ = io.WriteString(c, request+"\r\n")
					drive.Pause(ctx, time.Minute)
					_ = c.Close() // nothing was read
				}
				drive.Pause(ctx, time.Second)
			}
		})
	}
	wg.Wait()
	return nil
}

// slow connects with as small a buffer for what arrives as the system allows.
func slow(from, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return err
	}
	return d.Dial("tcp", addr)
}

const (
	docsFile = "/docs/swagger-ui-bundle.js"
	docsRate = 60 // requests a second
)

// docs has clients ask for the largest file of the documentation, and say that
// they cannot unpack anything.
func (s *system) docs(conns int) func(context.Context, *findings) error {
	return func(ctx context.Context, f *findings) error {
		t := drive.Traffic{
			Path: "/docs/", Codes: []string{"swagger-ui-bundle.js"}, Agents: []string{"abuse"}, Headers: "Accept: */*\r\n",
			From: "127.0.0.2", Status: http.StatusOK,
		}
		l := drive.OpenLoop(ctx, s.api.Addr, t, conns, docsRate, s.lasts)
		f.answered(http.StatusOK, len(l.All))
		if len(l.All) == 0 {
			return fmt.Errorf("no file was answered: %s", failures(l))
		}
		return nil
	}
}

// docsCost holds what a file of the documentation may cost: processor time is
// counted by the system, and says more than latencies on a busy machine.
func docsCost(r *result) {
	const most = 4 * time.Millisecond
	files := r.answers[http.StatusOK]
	if files == 0 {
		return
	}
	each := max(0, r.cpu/time.Duration(files)) // the calm may have cost more
	r.note("%s of processor time of the api for a file", short(each))
	if each > most {
		r.breaks("a file of the documentation takes %s of processor time, more than %s", short(each), most)
	}
}

// trickleFor is how long slow clients are watched: they may be cut off a minute
// after they began.
func (s *system) trickleFor() time.Duration {
	if s.untilCut {
		return 2 * time.Minute
	}
	return max(s.lasts, 8*time.Second)
}

// trickle has one token's uploads and another's exports that go on very slowly, as
// many as there are places. Others have to get a place meanwhile.
func (s *system) trickle(ctx context.Context, f *findings) error {
	slowly, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { s.trickleUpload(slowly, 1000) })
	}
	for range 4 {
		wg.Go(func() { s.trickleExport(slowly) })
	}
	defer wg.Wait()
	defer stop()
	drive.Pause(ctx, 2*time.Second)
	if _, err := s.admin().Upload(ctx, "users", strings.NewReader("username,email\nno,no\n")); err != nil {
		f.breaks("an upload of somebody else fails while the places are held: %v", err)
	}
	if status, _, err := s.admin().Send(ctx, http.MethodGet, "/users?format=csv", "", nil); err != nil || status != http.StatusOK {
		f.breaks("an export of somebody else is answered %d while the places are held (error %v)", status, err)
	}
	if !s.untilCut {
		return nil
	}
	drive.Pause(ctx, 90*time.Second)
	for what, metric := range map[string]string{"uploads": "signpost_uploads_active", "exports": "signpost_exports_active"} {
		n, err := drive.Metric(ctx, s.api.Admin, metric)
		if err != nil || n > 0 {
			f.breaks("%v trickling %s go on after 90 seconds (error %v)", n, what, err)
		}
	}
	return nil
}

// trickleUpload begins an upload with some rows and then sends a byte a second,
// until ctx ends or it is answered.
func (s *system) trickleUpload(ctx context.Context, rows int) {
	c, err := slow("127.0.0.2", s.api.Addr)
	if err != nil {
		return
	}
	defer c.Close() //nolint:errcheck // done with it
	_, _ = io.WriteString(c, "POST /imports?kind=urls&user_id=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n"+
		"Authorization: Bearer "+s.editor+"\r\n\r\n")
	text := "original_url\n" + strings.Repeat("https://example.org/\n", rows)
	_, err = fmt.Fprintf(c, "%x\r\n%s\r\n", len(text), text)
	for err == nil && ctx.Err() == nil {
		drive.Pause(ctx, time.Second)
		_, err = io.WriteString(c, "1\r\nh\r\n")
	}
}

// trickleExport reads an export of all links at a few kilobytes a second.
func (s *system) trickleExport(ctx context.Context) {
	c, err := slow("127.0.0.2", s.api.Addr)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // a read may wait long
	defer stop()
	defer c.Close() //nolint:errcheck // done with it
	_, err = io.WriteString(c, "GET /urls?format=csv HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+s.reader+"\r\n\r\n")
	buf := make([]byte, 500)
	for err == nil && ctx.Err() == nil {
		drive.Pause(ctx, 500*time.Millisecond)
		_, err = c.Read(buf)
	}
}

// listeners has one token take every place that it can get for listening to clicks, with
// any last id, and read nothing while clicks come. Others have to get a place meanwhile,
// and hear of clicks. When the listeners hang up, their places have to be free soon.
func (s *system) listeners(ctx context.Context, f *findings) error {
	lastIDs := []string{"1:1:", "1:99999999999999999999:", "9:1:", strings.Repeat("9", 8000), "1:9:" + strings.Repeat("2,", 3000) + "2", "\xff'; --"}
	var conns []net.Conn
	for i := range 120 {
		path := []string{"/live", "/urls/1/live"}[i%2]
		c, status := s.watch(path, s.reader, "Last-Event-ID: "+lastIDs[i%len(lastIDs)])
		f.answered(status, 1)
		if status == http.StatusOK {
			conns = append(conns, c)
		}
	}
	f.note("%d clients listened", len(conns))
	if len(conns) == 0 {
		return errors.New("nobody could listen")
	}
	if c, status := s.watch("/live", adminToken); status != http.StatusOK {
		f.breaks("listening of somebody else is answered %d while the places are held", status)
	} else {
		if err := hears(c); err != nil {
			f.breaks("somebody else hears of no click: %v", err)
		}
		conns = append(conns, c)
	}
	drive.Pause(ctx, s.lasts/2)
	s.hangUp(ctx, f, conns, "signpost_live_streams_active")
	return nil
}

// hears waits for a click.
func hears(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	for lines := bufio.NewReader(c); ; {
		line, err := lines.ReadString('\n')
		if err != nil || line == "event: click\n" {
			return err
		}
	}
}

// hangUp closes connections, whose places have to be free soon. The metric says how many
// are taken.
func (s *system) hangUp(ctx context.Context, f *findings, conns []net.Conn, metric string) {
	for _, c := range conns {
		_ = c.Close() // it hangs up
	}
	hungUp := time.Now()
	const soon = 3 * time.Second // three times the promise
	for {
		n, err := drive.Metric(ctx, s.api.Admin, metric)
		if err == nil && n == 0 {
			f.note("their places were free after %s", short(time.Since(hungUp)))
			return
		}
		if time.Since(hungUp) > soon || ctx.Err() != nil {
			f.breaks("%v places are taken %s after they hung up (error %v)", n, soon, err)
			return
		}
		drive.Pause(ctx, 50*time.Millisecond)
	}
}

// watchers has clients take every place that there is for watching an import, and
// hang up. The places have to be free again soon.
func (s *system) watchers(ctx context.Context, f *findings) error {
	uploading, stop := context.WithCancel(ctx)
	var upload sync.WaitGroup
	upload.Go(func() { s.trickleUpload(uploading, 100_000) }) // an import that is not done
	defer upload.Wait()
	defer stop()
	id, err := s.receiving(ctx)
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/imports/%d/progress", id)
	var conns []net.Conn
	for i := range 120 {
		token := s.reader
		if i%2 == 1 {
			token = s.editor
		}
		if c, status := s.watch(path, token); status == http.StatusOK {
			conns = append(conns, c)
		}
	}
	f.note("%d clients watched and hung up", len(conns))
	if len(conns) == 0 {
		return fmt.Errorf("nobody could watch import %d", id)
	}
	s.hangUp(ctx, f, conns, "signpost_import_streams_active")
	return nil
}

// receiving waits for an import whose file is being received.
func (s *system) receiving(ctx context.Context) (id int64, err error) {
	err = drive.Until(ctx, time.Minute, 50*time.Millisecond, func(ctx context.Context) error {
		var list struct {
			Data []struct {
				ID    int64
				State string
			}
		}
		if err := s.admin().Get(ctx, "/imports?limit=1", &list); err != nil {
			return err
		}
		if len(list.Data) == 0 || list.Data[0].State != "receiving" { // the newest is first
			return errors.New("no import is receiving its file")
		}
		id = list.Data[0].ID
		return nil
	})
	return id, err
}

// watch begins to watch and returns the answer.
func (s *system) watch(path, token string, headers ...string) (net.Conn, int) {
	c, err := slow("127.0.0.2", s.api.Addr)
	if err != nil {
		return nil, 0
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n%s\r\n", path, token, strings.Join(append(headers, ""), "\r\n"))
	line, err := bufio.NewReader(c).ReadString('\n')
	var status int
	if err == nil {
		_, err = fmt.Sscanf(line, "HTTP/1.1 %d", &status)
	}
	if err != nil || status != http.StatusOK {
		_ = c.Close() // it is of no use
	}
	return c, status
}

// unknown asks for codes that there are not, each once, over a thousand connections.
func (s *system) unknown(ctx context.Context, f *findings) error {
	codes := make([]string, 200_000)
	for i := range codes {
		codes[i] = fmt.Sprintf("no%d", i)
	}
	turn := new(atomic.Int64)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			t := drive.Traffic{
				Codes: codes, Turn: turn, Agents: []string{"abuse"}, Status: http.StatusNotFound,
				From: fmt.Sprintf("127.0.0.%d", 2+i),
			}
			l := drive.OpenLoop(ctx, s.api.Addr, t, 250, 500, s.lasts)
			f.answered(http.StatusNotFound, len(l.All))
		})
	}
	wg.Wait()
	return nil
}

// guess sends two hundred wrong tokens from one address at the same moment.
func (s *system) guess(_ context.Context, f *findings) error {
	begin := make(chan struct{})
	var wg, ready sync.WaitGroup
	for i := range 200 {
		ready.Add(1)
		wg.Go(func() {
			c, err := drive.DialFrom("127.0.0.77", s.api.Addr)
			ready.Done()
			if err != nil {
				return
			}
			defer c.Close() //nolint:errcheck // done with it
			<-begin
			status, _ := c.Get("/users", "abuse", fmt.Sprintf("Authorization: Bearer sp_%043d\r\n", i))
			f.answered(status, 1)
		})
	}
	ready.Wait()
	close(begin)
	wg.Wait()
	if n := f.answers[http.StatusUnauthorized]; n == 0 || n > 12 { // ten, and one more every six seconds
		f.breaks("%d guesses of 200 were looked up, where ten may be", n)
	}
	return nil
}

// lastLine returns the end of a log.
func lastLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
