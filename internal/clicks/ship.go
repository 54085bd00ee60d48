package clicks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Segment is a sealed part of the spool.
type Segment struct {
	ID    string // unique forever, also the id of the batch
	Bytes int64  // on disk
}

// Batch is a segment packed for Postgres. The same segment always gives the
// same clicks.
type Batch struct {
	ID      string
	Clicks  int
	Oldest  time.Time // of the clicks
	Payload []byte    // what DecodeBatch takes
}

// maxListed bounds what Segments and RemoveExpired return at a time.
const maxListed = 256

// ErrSetAside is what Read returns, wrapped, for a segment without one whole
// record. It has been renamed, counted and logged, and is not listed again.
var ErrSetAside = errors.New("segment set aside: it has no whole record")

// Segments returns the segments ready to ship, oldest first, at most 256 at a
// time. They include those of adopted folders.
func (s *Spool) Segments() ([]Segment, error) { return s.shelf.list(maxListed) }

// Read packs a segment. Damaged records are skipped, counted and logged; whole
// ones before and after them are kept.
func (s *Spool) Read(seg Segment) (Batch, error) {
	records, err := s.shelf.records(seg.ID)
	if err != nil && !errors.Is(err, errTooLarge) {
		return Batch{}, fmt.Errorf("read segment: %w", err)
	}
	found, damaged := scan(seg.ID, records)
	s.shelf.tellDamage(seg.ID, damaged, len(found))
	if len(found) == 0 {
		if err := s.shelf.setAside(seg.ID); err != nil {
			return Batch{}, err
		}
		return Batch{}, fmt.Errorf("read segment %s: %w", seg.ID, ErrSetAside)
	}
	b := Batch{ID: seg.ID, Clicks: len(found), Oldest: found[0].At, Payload: EncodeBatch(found)}
	for _, c := range found {
		if c.At.Before(b.Oldest) {
			b.Oldest = c.At
		}
	}
	return b, nil
}

// Shipped says that the batch of this id is committed. Its segment is kept for
// Options.Keep, out of the line. Saying it again does no harm.
func (s *Spool) Shipped(id string) error {
	if err := s.shelf.ship(id); err != nil {
		return fmt.Errorf("keep shipped segment: %w", err)
	}
	return nil
}

// Reship puts every segment that was shipped and is still kept back in line,
// for a Postgres that lost what it had committed, such as a replica that was
// promoted while it lagged. It returns how many.
func (s *Spool) Reship() (int, error) {
	n, err := s.shelf.reship()
	if n > 0 {
		notify(s.sealed)
	}
	if err != nil {
		return n, fmt.Errorf("reship kept segments: %w", err)
	}
	return n, nil
}

// RemoveExpired removes segments shipped longer than Options.Keep before now
// and returns ids, at most 256 at a time, of segments that are gone for good:
// not even a power cut brings them back, so nobody will ship them again. It
// goes on returning an id, across restarts, until Confirmed is told of it.
func (s *Spool) RemoveExpired(now time.Time) ([]string, error) {
	limit := now.Add(-s.opt.Keep)
	err := s.shelf.expire(func(path string, _ int64) bool {
		info, err := os.Lstat(path)
		return err == nil && !info.ModTime().After(limit)
	})
	if err != nil {
		return nil, fmt.Errorf("remove kept segments: %w", err)
	}
	ids, err := s.shelf.removed(maxListed)
	if err != nil {
		return nil, fmt.Errorf("list removed segments: %w", err)
	}
	return ids, nil
}

// Confirmed says that whoever remembers these ids has committed that they are
// gone for good. The spool forgets them. Unknown ids are ignored.
func (s *Spool) Confirmed(ids []string) error {
	if err := s.shelf.forget(ids); err != nil {
		return fmt.Errorf("forget removed segments: %w", err)
	}
	return nil
}

// Adopt takes over the folders below Options.Dir whose owner is gone and
// returns how many segments that added. Folders with an owner are not opened.
func (s *Spool) Adopt() (segments int, err error) {
	segments, err = s.shelf.adopt()
	if segments > 0 {
		notify(s.sealed)
	}
	return segments, err
}

// OpenForShipping opens what a vanished process left: dir is one of its
// folders, or a folder of such folders. The spool takes no clicks; Segments,
// Read, Shipped, Reship, RemoveExpired, Confirmed and Close work as usual. It
// is an error if there is no folder, or if none is free.
func OpenForShipping(dir string, o Options) (*Spool, error) {
	o.Dir = dir
	o.Durability = Process
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := newSpool(o, realDisk(), usualPatience)
	s.closed = true
	s.settleRefusal()
	close(s.writerDone)
	close(s.keeperDone)
	if folderName.MatchString(filepath.Base(dir)) {
		_, err = s.shelf.adoptOne(dir)
	} else {
		_, err = s.shelf.adopt()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open spool to ship: %w", err), s.Close())
	}
	if len(s.shelf.folders) == 0 {
		return nil, errors.Join(fmt.Errorf("open spool to ship: no folder in %s without a living owner", dir), s.Close())
	}
	notify(s.sealed)
	return s, nil
}
