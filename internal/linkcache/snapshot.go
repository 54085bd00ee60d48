package linkcache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

const (
	// snapshotEvery is the least time between snapshots. Links cached since the
	// last one are missing after a crash.
	snapshotEvery = 10 * time.Second
	// snapshotShare is how much longer than writing a snapshot took the next
	// one waits at least, so that a large cache does not wear the disk out.
	snapshotShare = 50
	// maxSnapshotAge is when an unchanged snapshot is written again, since
	// StaleMax counts from the time that it tells. It is less if StaleMax is.
	maxSnapshotAge = 10 * time.Minute
	// lastSnapshotWait bounds what a hanging disk costs at the end.
	lastSnapshotWait = 5 * time.Second
)

// restore fills the empty cache from the snapshot. One that cannot be used is
// logged and removed.
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
		c.journal.broken.Store(true) // the next snapshot starts afresh
		return
	}
	c.dirty.Store(true)
	c.sweeps.Add(1) // not all of it may be current
	c.swept <- struct{}{}
	c.log.Info("link snapshot restored", slog.Int("links", c.Len()), slog.Time("at", time.Unix(0, c.followed.Load())))
}

func (c *Cache) readSnapshot(file *os.File) error {
	var head *mark
	size, err := snapshotReader{
		head:   func(m *mark) { head = m },
		cached: c.restoreLink,
		learnt: c.replay,
	}.read(file)
	if err != nil {
		return err
	}
	if head != nil {
		head.epoch = c.epoch.Load()
		c.mark.Store(head)
		c.followed.Store(head.followed)
	}
	return file.Truncate(size) // half a frame that a killed process left
}

// restoreLink takes a link that the snapshot holds.
func (c *Cache) restoreLink(l savedLink) {
	e := &entry{code: l.code, link: l.link, validAt: l.validAt, stamp: c.tick.Add(1)}
	if l.current {
		e.epoch = c.epoch.Load()
	}
	s := c.shardOf(l.code)
	if old := s.entries[l.code]; old != nil {
		s.remove(old)
	}
	s.add(e)
}

// replay takes a change from the log. What the snapshot holds may be newer,
// since the snapshot was made while the log was written.
func (c *Cache) replay(l savedLink) {
	s := c.shardOf(l.code)
	e := s.entries[l.code]
	if e != nil && l.link != nil && l.validAt < e.validAt && l.link.ID == e.link.ID && l.link.Version <= e.link.Version {
		return
	}
	if l.link == nil || e != nil && l.validAt < e.validAt && l.link.ID != e.link.ID {
		if e != nil {
			s.remove(e)
		}
		return
	}
	c.restoreLink(l)
}

// record writes changes to the log before they are applied. A link that is not
// cached may be in the snapshot all the same: it is to be forgotten. The caller
// holds learning until the changes are applied.
func (c *Cache) record(changes []change, seen view) {
	if c.journal == nil || len(changes) == 0 {
		return
	}
	var frames bytes.Buffer // writing to it does not fail
	w := &frameWriter{w: &frames}
	w.begin(frameLog)
	for _, ch := range changes {
		l := savedLink{code: ch.code, validAt: seen.at}
		if ch.link != nil && c.has(ch.code) {
			l.link = ch.link
		}
		_ = w.add(l)
	}
	_ = w.flush()
	c.journal.append(frames.Bytes())
}

func (c *Cache) has(code string) bool {
	s := c.shardOf(code)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[code] != nil
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
			due = nil // a failing disk is not asked more often for it
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
		timer.Reset(max(snapshotEvery, snapshotShare*saved.Sub(began)))
	}
}

// saveLast writes a snapshot at the end, if the disk lets it.
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

// saveSnapshot writes what is cached to disk. Changes go on meanwhile.
func (c *Cache) saveSnapshot() error {
	c.learning.Lock()
	m := c.mark.Load()
	err := c.journal.begin()
	c.learning.Unlock()
	if err == nil {
		c.dirty.Store(false)
		err = c.journal.replace(func(w io.Writer) error { return c.writeSnapshot(w, m) })
	}
	if err != nil {
		c.dirty.Store(true)
	}
	return err
}

// writeSnapshot writes entries that are at least as new as m.
func (c *Cache) writeSnapshot(to io.Writer, m *mark) error {
	w := &frameWriter{w: to}
	if err := w.writeHead(m); err != nil {
		return err
	}
	w.begin(frameLinks)
	var links []savedLink
	for i := range c.shards {
		links = c.shards[i].saved(links[:0], m)
		for _, l := range links {
			if err := w.add(l); err != nil {
				return err
			}
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.begin(frameEnd)
	return w.flush()
}

// saved copies the shard's entries, so that it is not locked while they are
// written.
func (s *shard) saved(links []savedLink, m *mark) []savedLink {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, e := range s.ring {
		links = append(links, savedLink{
			code: e.code, link: e.link, validAt: e.validAt, current: m != nil && e.epoch == m.epoch,
		})
	}
	return links
}
