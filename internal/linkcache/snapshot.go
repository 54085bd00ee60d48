package linkcache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"
)

// A snapshot is this line, a record with its head, records of links, and a record that
// ends it. After that comes a log of later changes.
var magic = "signpost links " + layout + "\n"

var errOtherFormat = errors.New("not a link snapshot of this release")

const (
	// snapshotEvery is the least time between snapshots. Links cached since the
	// last one are missing after a crash.
	snapshotEvery = 10 * time.Second
	// pauseFactor makes the pause before the next snapshot at least that many times
	// as long as the last one took to write, so that a large cache does not wear out
	// the disk.
	pauseFactor = 50
	// maxSnapshotAge is the age at which an unchanged snapshot is written again,
	// because StaleMax counts from the time in it. It is at most a tenth of StaleMax.
	maxSnapshotAge = 10 * time.Minute
	// savedTogether is how many links are in one record. The length of their targets is
	// bounded.
	savedTogether = 256
	// lastSnapshotWait bounds how long a disk that hangs delays the end of the process.
	lastSnapshotWait = 5 * time.Second
)

// restore fills the empty cache from the snapshot. If the snapshot cannot be used, that
// is logged and the file is removed.
func (c *Cache) restore(path string, size int) {
	c.journal = &journal{path: path, log: c.log, due: make(chan struct{}, 1)}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		c.journal.file = file
		err = c.readSnapshot(file)
	}
	if err != nil {
		c.log.Warn("link snapshot cannot be used; the cache starts empty", slog.String("file", path), slog.Any("error", err))
		c.shards = newShards(size)
		c.position.Store(nil)
		c.epoch.Store(&epoch{number: 1})
		c.domains.Store(newDomainTable(0, nil))
		c.journal.broken.Store(true) // the next snapshot starts afresh
		return
	}
	c.wakeSweep() // not all of it may be current
	c.log.Info("link snapshot restored", slog.Int("links", c.Len()),
		slog.Time("at", time.Unix(0, c.epoch.Load().followed.Load())))
}

// readSnapshot fills the cache from a file. If a killed process left a part of a record
// at the end, that part is cut off. With any other fault it returns an error, and
// nothing that it read may be used.
func (c *Cache) readSnapshot(file *os.File) error {
	r := bufio.NewReaderSize(file, 1<<16)
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(r, start); err != nil || string(start) != magic {
		return errOtherFormat
	}
	size, log := int64(len(magic)), false // log: the end record was read, now come changes
	stale := new(epoch)
	for first := true; ; first = false {
		var rec record
		n, err := decode(r, &rec)
		if log && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
			return file.Truncate(size)
		}
		if err == nil && (rec.Head != nil && !first || rec.End && log) {
			err = fmt.Errorf("%w: its head or its end is in the wrong place", errDamaged)
		}
		if err != nil {
			return err
		}
		size += int64(n)
		if h := rec.Head; h != nil {
			h.epoch = c.epoch.Load()
			h.epoch.followed.Store(h.Followed)
			c.position.Store(h)
		}
		if t := rec.Domains; t != nil {
			c.domains.Store(newDomainTable(t.Version, t.All))
		}
		for _, l := range rec.Links {
			if l.Link == nil && !log || l.Link != nil && !l.Link.valid() {
				return fmt.Errorf("%w: a link with invalid fields", errDamaged)
			}
			e := &entry{key: NewKey(l.Domain, l.Code), link: l.Link, validAt: l.ValidAt, epoch: stale}
			if l.Current {
				e.epoch = c.epoch.Load()
			}
			c.restoreLink(e, log)
		}
		log = log || rec.End
	}
}

// restoreLink stores a link of the snapshot, or a change from its log, which replaces
// an older link. The link in the snapshot may be the newer one, because the snapshot
// was made while the log was written.
func (c *Cache) restoreLink(l *entry, change bool) {
	s := c.shardOf(l.key)
	if old := s.entries[l.key]; old != nil {
		if oldIsNewer := change && l.validAt < old.validAt; oldIsNewer && l.link != nil {
			switch {
			case l.link.ID != old.link.ID:
				l.link = nil // which of the two is newer cannot be told
			case l.link.Version <= old.link.Version:
				return
			}
		}
		s.remove(old)
	}
	if l.link != nil {
		s.add(l)
	}
}

// record writes changes to the log before they are applied. A link that is not cached
// may still be in the snapshot, from which the change has to remove it. With told all
// changes are written, otherwise only those of cached entries. The caller holds
// applying until the changes are applied.
func (c *Cache) record(changes []change, seen view, told bool) {
	if c.journal == nil {
		return
	}
	links := make([]savedLink, 0, len(changes))
	for _, ch := range changes {
		s := c.shardOf(ch.key)
		s.mu.RLock()
		e := s.entries[ch.key]
		same := e != nil && ch.link != nil && ch.link.ID == e.link.ID && ch.link.Version == e.link.Version
		s.mu.RUnlock()
		if !told && (e == nil || same) {
			continue
		}
		l := savedLink{Domain: ch.key.domain, Code: ch.key.code, ValidAt: seen.at}
		if e != nil {
			l.Link = ch.link
		}
		links = append(links, l)
	}
	if len(links) > 0 {
		c.journal.append(encode(record{Links: links}))
	}
}

// keepSnapshot writes snapshots until ctx ends.
func (c *Cache) keepSnapshot(ctx context.Context) {
	timer := time.NewTimer(snapshotEvery)
	defer timer.Stop()
	saved := time.Now()
	failed := false
	for {
		due := c.journal.due
		if failed {
			due = nil // after a failure only the timer starts a new try
		}
		select {
		case <-ctx.Done():
			return
		case <-due:
		case <-timer.C:
			old := time.Since(saved) > min(maxSnapshotAge, time.Duration(c.staleMax/10))
			if !c.dirty.Load() && !old {
				timer.Reset(snapshotEvery)
				continue
			}
		}
		began := time.Now()
		err := c.saveSnapshot()
		c.reportSnapshot(ctx, err, failed)
		failed = err != nil
		saved = time.Now()
		timer.Reset(max(snapshotEvery, pauseFactor*saved.Sub(began)))
	}
}

// snapshotDue makes a snapshot be written soon. The one on disk lacks changes that
// happened while the feed missed some: a sweep only looks at cached links, and
// the snapshot also holds links that are not cached any more, or were loaded anew.
func (c *Cache) snapshotDue() {
	if c.journal == nil {
		return
	}
	select {
	case c.journal.due <- struct{}{}:
	default:
	}
}

// saveLast writes the last snapshot when the process ends, unless the disk takes too
// long.
func (c *Cache) saveLast(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.reportSnapshot(ctx, c.saveSnapshot(), false)
		c.journal.close()
	}()
	timer := time.NewTimer(lastSnapshotWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		c.log.WarnContext(ctx, "no last link snapshot: the disk does not answer")
	}
}

func (c *Cache) reportSnapshot(ctx context.Context, err error, failedBefore bool) {
	if err == nil {
		c.metrics.snapshots.WithLabelValues("done").Inc()
		return
	}
	c.metrics.snapshots.WithLabelValues("failed").Inc()
	if !failedBefore {
		c.log.WarnContext(ctx, "cannot write the link snapshot", slog.Any("error", err))
	}
}

// saveSnapshot writes all cached links to disk. Links may change while it does.
func (c *Cache) saveSnapshot() error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.applying.Lock()
	first := record{Head: c.position.Load(), Domains: c.domains.Load()}
	err := c.journal.begin()
	c.applying.Unlock()
	if err == nil {
		c.dirty.Store(false)
		err = c.journal.replace(func(w io.Writer) error { return c.writeSnapshot(w, first) })
	}
	if err != nil {
		c.dirty.Store(true)
	}
	return err
}

// writeSnapshot writes entries. They are at least as new as the head in the first
// record.
func (c *Cache) writeSnapshot(to io.Writer, first record) error {
	if _, err := io.WriteString(to, magic); err != nil {
		return err
	}
	if _, err := to.Write(encode(first)); err != nil {
		return err
	}
	var links []savedLink
	for i := range c.shards {
		links = c.shards[i].saved(links[:0], first.Head)
		for piece := range slices.Chunk(links, savedTogether) {
			if _, err := to.Write(encode(record{Links: piece})); err != nil {
				return err
			}
		}
	}
	_, err := to.Write(encode(record{End: true}))
	return err
}

// saved copies the shard's entries, so that it is not locked while they are
// written.
func (s *shard) saved(links []savedLink, h *head) []savedLink {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, e := range s.ring {
		l := savedLink{Domain: e.key.domain, Code: e.key.code, Link: e.link, ValidAt: e.validAt}
		if l.Current = h != nil && e.epoch == h.epoch; !l.Current {
			l.ValidAt = e.knownAt()
		}
		links = append(links, l)
	}
	return links
}
