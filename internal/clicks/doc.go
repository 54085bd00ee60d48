// Package clicks keeps a click from the moment its redirect is answered until
// Postgres has it.
//
// # The guarantee
//
// [Spool.Append] returns nil only when the click is as safe as the configured
// [Durability] promises: with [Process] it survives the death of the process
// (kill -9, out of memory, panic), with [Disk] also a power cut. When a click
// cannot be kept, Append says so at once with a [DropError] that carries one of a
// few reasons, and never holds its caller for more than about 40 ms, whatever the
// disk does; a click that is lost is counted. A click whose Append returned an
// error may still turn up once; it never turns up twice.
//
// A sealed part of the spool is a segment. One segment is one batch, and its name
// is the batch's id. The contents of a segment are fixed when it is sealed, and a
// name is never used again. So a ledger that remembers the ids makes it harmless
// to ship a segment twice: that is how every click is counted exactly once.
//
// # Folders
//
// Every process creates a folder of its own below [Options.Dir] and locks the file
// "lock" in it for as long as it lives. The kernel releases the lock when the
// process dies, however it dies. A folder without an owner is adopted by a living
// process, which ships its segments; only its creator ever adds a segment to a
// folder. Locked folders are never opened. Use local file systems only: the spool
// relies on flock and rename.
//
//	SPOOL_DIR/
//	  20260131t090507-0f1e2d3c4b5a6978/           time of creation, 64 random bits
//	    lock                                      held by the owner; names the installation
//	    20260131t090507-…6978-0000000001.open     being written, or the spare that is next
//	    20260131t090507-…6978-0000000000.seg      sealed, ready to ship
//	    20260131t090507-…6978-0000000007.bad      quarantined: without one whole record
//	    kept/…-0000000000.seg                     shipped, kept for Options.Keep
//	    gone/…-0000000000.seg                     the last removed (empty), until Postgres knows that it is
//
// A segment moves by rename only: .open, .seg, kept, gone. Its bytes are given
// back in kept, before the last move: on a full disk that move may need them.
// Files with other names are left alone.
//
// A segment that leaves a folder leaves it for good: [Spool.RemoveExpired] says below
// which number nothing is left, and a ledger that remembers the number recognises a
// copy of an older segment.
//
// A folder belongs to the installation that its lock names, and is shipped to no
// other: see [Spool.ShipTo]. A folder that is moved while it is in use is used where
// it is then.
//
// # Trouble
//
// One folder or segment in trouble keeps no other back. A segment that cannot be
// read or moved is passed over for a while, counted, and tried again after a pause
// that doubles each time. A segment that was shipped and cannot be moved stays in
// line and is shipped again.
//
// # Records
//
// A segment is a sequence of records without a header, little endian:
//
//	2 bytes  F7 FF or, if the body ends with flags, F7 FE: the sync mark, which
//	         carries the version of the format
//	4 bytes  CRC-32C of all that follows in the record
//	2 bytes  length of the body
//	body     time in microseconds (8), url id (uvarint), user id (uvarint),
//	         address length (1) and address (0, 4 or 16),
//	         user agent length (uvarint) and text, referrer length and text,
//	         flags (1) after F7 FE: 1 prefetch, 2 private, 4 opened by a QR code
//
// Neither byte of the mark occurs in UTF-8, so no header a client sends can
// contain a mark, and a scan that lost its way finds the next record. The
// checksum starts from the segment's name and the record's offset: a record in
// the wrong place (a stale block after a power cut, a file renamed by hand)
// does not count. The scan skips and counts damaged stretches and keeps each
// whole record before and after them; zeros at the end are the end.
//
// # How it is written
//
// Callers encode into a shared buffer and wait; one goroutine, the writer, writes
// all that has gathered with one system call (and one fdatasync with Disk) and
// wakes them. A goroutine in a system call cannot be cancelled, so the goroutine
// that answers a request makes none: if the writer does not come back, a watchdog
// gives the waiting appends "stuck", and further ones at once, until it does.
// Their records stay in the buffer as long as there is room, and are written late
// rather than never. Meanwhile they are neither kept nor lost
// (signpost_clicks_unwritten); then they count as one or the other
// (signpost_clicks_late_total, signpost_clicks_dropped_total). A second goroutine,
// the sealer, creates files ahead of need and seals them, so that the writer only
// ever writes.
//
// Mapping a preallocated file into memory would be cheaper, but a page
// fault on a disk that hangs stops a thread that the Go scheduler believes is
// running; at the next garbage collection the whole process stops with it.
package clicks
