package api

import (
	"bytes"
	"net"
	"time"

	"github.com/gofiber/fiber/v2"
)

const (
	// heldBytes bounds the memory of all request bodies that are being received and all
	// answers that are being sent. It applies to the management API; uploads, exports
	// and watchers have their own bounds.
	heldBytes = 32 << 20
	// heldLeast is the smallest size of a body that counts. Smaller ones take less
	// memory than the connection itself.
	heldLeast = 8 << 10
	// heldWait is the Retry-After for a client that found no room.
	heldWait = 2 * time.Second
)

var (
	errHeld     = &Error{Status: 503, Message: "too much waits for slow clients, try again shortly", RetryAfter: heldWait}
	errHeldHalf = tooMany("too much waits for the clients of this token: send and read faster, or ask for less at once", heldWait)
)

// holdAnswer counts an answer until it is sent or its connection is gone, however long
// the client takes. Only requests that read can be refused: after a write it is too
// late for that, and the answers of writes are small.
func (a *API) holdAnswer(c *fiber.Ctx) error {
	r := &c.Context().Response
	if r.IsBodyStream() || len(r.Body()) <= heldLeast {
		return nil
	}
	// Otherwise the buffer stays with its connection, even while that is idle.
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

// heldBody is an answer that is counted until fasthttp closes it.
type heldBody struct {
	*bytes.Reader
	give func()
}

// Close implements io.Closer.
func (b *heldBody) Close() error {
	b.give()
	return nil
}

// sendBuffer is how many bytes of a large answer the kernel may buffer. By default it
// buffers megabytes for a client that does not read.
const sendBuffer = 64 << 10

// boundSendBuffer bounds the bytes of an answer that wait in the kernel.
func boundSendBuffer(conn net.Conn, size int) {
	if size > sendBuffer {
		setSendBuffer(conn, sendBuffer)
	}
}

func setSendBuffer(conn net.Conn, size int) {
	if tcp, ok := conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(size) // on an error it stays as large as before
	}
}
