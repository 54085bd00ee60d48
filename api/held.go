package api

import "net"

// sendBuffer is what the kernel may take of an answer that is not small, in bytes:
// left to itself it holds megabytes for a client that does not read.
const sendBuffer = 64 << 10

// boundSendBuffer bounds what of an answer of that many bytes waits in the kernel.
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
