package worker

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/visits"
)

// copyEventsSQL is not one of the sqlc queries, because those use pgx's CopyFrom, which
// boxes and plans every value anew: that took half of a worker's processor time. Here a
// row takes a dozen appends.
const copyEventsSQL = `
COPY events (
    occurred_at, url_id, user_id, visitor, bot, event_type, browser, os, device, country, referrer_host,
    kind, rules, firsts, user_agent_id, trigger
) FROM STDIN (FORMAT binary)`

const (
	eventColumns = 16
	// copyPiece is how many rows are encoded at a time, so that a batch is never in
	// memory a second time as a whole.
	copyPiece = 512
)

// storeEvents copies events into the table, in their order, which is that of time.
func storeEvents(ctx context.Context, tx pgx.Tx, events []event) error {
	if err := claimVisitors(ctx, tx, events); err != nil {
		return err
	}
	return copyEvents(ctx, tx, events)
}

func copyEvents(ctx context.Context, tx pgx.Tx, events []event) error {
	return wrap("copy clicks", copyRows(ctx, tx, copyEventsSQL, events, appendEvent))
}

// copyRows copies rows into a table. appendRow appends a row in the format of binary COPY,
// see https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
func copyRows[T any](ctx context.Context, tx pgx.Tx, sql string, rows []T, appendRow func([]byte, *T) []byte) error {
	r := &rowReader[T]{rest: rows, appendRow: appendRow, buf: appendCopyHeader(make([]byte, 0, copyPiece*200))}
	_, err := tx.Conn().PgConn().CopyFrom(ctx, r, sql)
	return err
}

// rowReader reads rows in the format of binary COPY.
type rowReader[T any] struct {
	rest      []T
	appendRow func([]byte, *T) []byte
	buf       []byte
	read      int // of buf
	ended     bool
}

// Read implements [io.Reader].
func (r *rowReader[T]) Read(p []byte) (int, error) {
	if r.read == len(r.buf) {
		if r.ended {
			return 0, io.EOF
		}
		r.fill()
	}
	n := copy(p, r.buf[r.read:])
	r.read += n
	return n, nil
}

func (r *rowReader[T]) fill() {
	r.buf, r.read = r.buf[:0], 0
	piece := r.rest[:min(copyPiece, len(r.rest))]
	r.rest = r.rest[len(piece):]
	for i := range piece {
		r.buf = r.appendRow(r.buf, &piece[i])
	}
	if len(r.rest) == 0 {
		r.buf = binary.BigEndian.AppendUint16(r.buf, 0xffff) // the trailer
		r.ended = true
	}
}

func appendCopyHeader(b []byte) []byte {
	b = append(b, "PGCOPY\n\xff\r\n\x00"...)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0) // no flags, no extension
}

// epoch is the time from which Postgres counts, in microseconds since 1970.
var epoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func appendEvent(b []byte, e *event) []byte {
	b = binary.BigEndian.AppendUint16(b, eventColumns)
	b = appendInt(b, e.at-epoch)
	b = appendInt(b, e.urlID)
	b = appendInt(b, e.userID)
	if e.private {
		b = appendNull(b)
	} else {
		b = appendInt(b, e.visitor)
	}
	if e.kind == visits.Person {
		b = append(b, 0, 0, 0, 1, 0)
	} else {
		b = append(b, 0, 0, 0, 1, 1)
	}
	b = appendText(b, eventClicked)
	b = append(b, e.agent.columns...)
	if e.country == [2]byte{} {
		b = appendText(b, "")
	} else {
		b = append(b, 0, 0, 0, 2, e.country[0], e.country[1])
	}
	b = appendText(b, e.host)
	b = appendText(b, string(e.kind))
	b = appendSmallint(b, e.rules)
	b = appendSmallint(b, e.firsts)
	if e.agent.id == 0 {
		b = appendNull(b)
	} else {
		b = appendInt(b, e.agent.id)
	}
	return appendText(b, storedTrigger(e.trigger))
}

// storedTrigger returns a trigger as its column has it: NULL, here "", is a link.
func storedTrigger(t clicks.Trigger) string {
	if t == clicks.TriggerLink {
		return ""
	}
	return t.String()
}

func appendNull(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0xff) }

func appendSmallint(b []byte, n int16) []byte {
	return append(b, 0, 0, 0, 2, byte(uint16(n)>>8), byte(n))
}

func appendInt(b []byte, n int64) []byte {
	b = binary.BigEndian.AppendUint32(b, 8)
	return binary.BigEndian.AppendUint64(b, uint64(n))
}

// appendText appends s; "" becomes NULL.
func appendText(b []byte, s string) []byte {
	if s == "" {
		return appendNull(b)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}
