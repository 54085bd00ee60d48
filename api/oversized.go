package api

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"github.com/signpost/signpost/internal/links"
)

// The parts of a request that may be longer than maxHeader allows, as a metric
// names them.
const (
	partAddress = "address"
	partHeaders = "headers"
)

// oversized describes a request whose address and headers are longer than maxHeader.
// fasthttp has given it up, and passes on only its first 200 bytes and the last 200
// that were read.
type oversized struct {
	head, tail []byte
	ahead      []byte // bytes that have arrived after those
}

// readOversized takes the known parts of the request from an error of fasthttp, and
// peeks at the following bytes on the connection.
func readOversized(err *fasthttp.ErrSmallBuffer, conn net.Conn) oversized {
	_, contents, _ := strings.Cut(err.Error(), "contents: ")
	head, rest := cutQuoted(contents)
	tail, _ := cutQuoted(strings.TrimPrefix(rest, "..."))
	return oversized{head: head, tail: tail, ahead: peek(conn, maxHeader)}
}

// cutQuoted cuts a string in Go syntax off the start of a text.
func cutQuoted(text string) (value []byte, rest string) {
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return nil, text
	}
	unquoted, _ := strconv.Unquote(quoted) // it was just found to be one
	return []byte(unquoted), text[len(quoted):]
}

// address returns the beginning of the requested address.
func (o oversized) address() []byte {
	_, address, _ := bytes.Cut(o.head, []byte(" "))
	return address
}

// part returns the part that is too long. An address contains no blank and no line end.
// So if the only ones are at the beginning, between the method and the address, the
// address fills everything.
func (o oversized) part() string {
	if address := o.address(); len(address) > 0 && !bytes.ContainsAny(address, " \r\n") && !bytes.ContainsAny(o.tail, " \r\n") {
		return partAddress
	}
	return partHeaders
}

// browserSigns occur in the headers of browsers and hardly anywhere else.
var browserSigns = [][]byte{
	[]byte("text/html"), []byte("mozilla/"), []byte("sec-fetch-"), []byte("sec-ch-ua"), []byte("upgrade-insecure-requests"),
}

// ofBrowser reports whether a person with a browser is likely to see the answer. If a
// long address hides all headers but a part of the cookies, it is assumed for requests
// of short links.
func (o oversized) ofBrowser() bool {
	seen := bytes.ToLower(bytes.Join([][]byte{o.head, o.tail, o.ahead}, nil))
	for _, sign := range browserSigns {
		if bytes.Contains(seen, sign) {
			return true
		}
	}
	path, _, _ := strings.Cut(string(o.address()), "?")
	return o.part() == partHeaders && !bytes.Contains(seen, []byte("\n")) && !links.ReadPath(path).Reserved
}

// advice tells a person which part to clear. A browser's headers become long because of
// cookies; cookies of a parent domain come from other sites.
func (o oversized) advice() string {
	if o.part() == partAddress {
		return "The address of this page is longer than 16 KiB, which is more than this site reads. " +
			"Shorten it: take away what stands behind the question mark."
	}
	return "Your browser sent more than 16 KiB with its request, nearly always because cookies have piled up. " +
		"Clear the cookies of this site and of its parent domain in the settings of the browser, and follow the link again."
}

// refuseOversized answers such a request: with a page for a person with a browser, with
// JSON for any other client.
func (a *API) refuseOversized(ctx *fasthttp.RequestCtx, err *fasthttp.ErrSmallBuffer) {
	o := readOversized(err, ctx.Conn())
	client := "other"
	if o.ofBrowser() {
		client = "browser"
	}
	a.metrics.oversized.WithLabelValues(o.part(), client).Inc()
	if conn, ok := ctx.Conn().(*lingeringConn); ok {
		conn.linger.Store(true) // the rest of the request may be on its way
	}
	if client == "other" {
		writeError(&ctx.Response, plainError(http.StatusRequestHeaderFieldsTooLarge))
		return
	}
	writeErrorPage(&ctx.Response, &Error{Status: http.StatusRequestHeaderFieldsTooLarge, Message: o.advice()})
}

// peek returns up to limit bytes that have arrived on a connection, without consuming
// them. It does not wait.
func peek(conn net.Conn, limit int) (seen []byte) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	buf := make([]byte, limit)
	_ = raw.Control(func(fd uintptr) { // on an error the connection is closed
		n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == nil {
			seen = buf[:n]
		}
	})
	return seen
}
