package api

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gofiber/fiber/v2"
)

// stream answers c with a body that is made piece by piece while it is sent, in the
// goroutine of the connection: there is never more than one piece in memory. next
// returns the next piece, which must stay unchanged until next is called again, and
// io.EOF after the last. Any other error breaks the connection, so that half an answer
// is not taken for a whole one. done is called once at the end, in any case.
//
// next must not use c. The time limit begins anew with each write, so the client may
// take as long as it likes for the whole body.
func (a *API) stream(c *fiber.Ctx, next func() ([]byte, error), done func()) {
	if c.Method() == http.MethodHead { // there is no body to end
		done()
		c.Context().Response.SkipBody = true
		return
	}
	c.Context().Response.SetBodyStream(&streamed{
		api: a, conn: c.Context().Conn(), requestID: responseID(c), path: string(c.Request().URI().Path()),
		next: next, done: done,
	}, -1)
}

// streamed is the body of an answer while it is sent.
type streamed struct {
	api             *API
	conn            net.Conn
	requestID, path string
	next            func() ([]byte, error)
	done            func()
	rest            []byte
}

// errStreamPanicked ends a stream when next panics. Without it the panic would end the
// process, because fasthttp does not recover it.
var errStreamPanicked = errors.New("the answer panicked")

// Read implements io.Reader.
func (s *streamed) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.api.logStreamPanic(s, r)
			n, err = 0, errStreamPanicked
		}
	}()
	for len(s.rest) == 0 {
		if s.rest, err = s.next(); err != nil {
			s.log(err)
			return 0, err
		}
	}
	n = copy(p, s.rest)
	s.rest = s.rest[n:]
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return n, nil
}

func (s *streamed) log(err error) {
	if !errors.Is(err, io.EOF) {
		s.api.Log.Warn("answer broke off", slog.String("path", s.path), slog.String("request_id", s.requestID), slog.Any("error", err))
	}
}

// Close implements io.Closer. fasthttp calls it when the answer is sent or its
// connection is gone.
func (s *streamed) Close() error {
	s.done()
	s.done = func() {}
	return nil
}

func (a *API) logStreamPanic(s *streamed, recovered any) {
	a.Log.Error("answer panicked", slog.String("path", s.path), slog.String("request_id", s.requestID),
		slog.Any("panic", recovered), slog.String("stack", string(debug.Stack())))
}
