package api

import (
	"bytes"
	"net"
	"time"

	"github.com/gofiber/fiber/v2"
)

const (
	// heldBytes bounds what the bodies of requests that are being received and of
	// answers that are being sent take of the memory in all. It concerns the
	// management API; uploads, exports and watchers have bounds of their own.
	heldBytes = 32 << 20
	// heldLeast is the size from which a body counts. A connection alone takes
	// more.
	heldLeast = 8 << 10
	// heldWait is when a client that found no room should try again.
	heldWait = 2 * time.Second
)

var (
	errHeld     = &Error{Status: 503, Message: "too much waits for slow clients, try again shortly", RetryAfter: heldWait}
	errHeldHalf = tooMany("too much waits for the clients of this token: send and read faster, or ask for less at once", heldWait)
)

// holdAnswer makes an answer count until it is sent or its connection gone, however
// long its client takes. Only requests that read are refused: a write has happened,
// and its answer is small.
func (a *API) holdAnswer(c *fiber.Ctx) error {
	r := &c.Context().Response
	if r.IsBodyStream() || len(r.Body()) <= heldLeast {
		return nil
	}
	// The buffer stays with its connection otherwise, also while that is idle.
	body := r.Body()
	r.SwapBody(nil)
	if c.Method() != fiber.MethodGet {
		r.SetBodyRaw(body)
		return nil
	}
	give, err := a.held.take(actorOf(c), int64(len(body)))
	if err != nil {
		return err
	}
	boundSendBuffer(c.Context().Conn(), len(body))
	r.SetBodyStream(&heldBody{bytes.NewReader(body), give}, len(body))
	return nil
}

// heldBody is an answer that counts until fasthttp closes it.
type heldBody struct {
	*bytes.Reader
	give func()
}

// Close implements io.Closer.
func (b *heldBody) Close() error {
	b.give()
	return nil
}

// sendBuffer is what the kernel may take of an answer that is not small, in bytes:
// left to itself it holds megabytes for a client that does not read.
const sendBuffer = 64 << 10

// boundSendBuffer bounds the bytes of an answer that wait in the kernel.
func boundSendBuffer(conn net.Conn, size int) {
	if size > sendBuffer {
		setSendBuffer(conn, sendBuffer)
	}
}

func setSendBuffer(conn net.Conn, size int) {
	if tcp, ok := conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(size) // or it is as large as before
	}
}
