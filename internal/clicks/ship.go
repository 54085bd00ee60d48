package clicks

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	Payload []byte    // for DecodeBatch

	damaged map[string]int // stretches that were skipped, by reason
}

// maxListed bounds what Segments returns at a time.
const maxListed = 256

// ErrQuarantined is wrapped by the error of Read for a segment without one whole
// record. It has been renamed, counted and logged, and is not listed again.
var ErrQuarantined = errors.New("segment quarantined: it has no whole record")

// Segments returns the segments ready to ship that come after one ("" for all),
// oldest first, at most 256 at a time. They include those of adopted folders and
// leave out those that are passed over. An error says that folders could not be
// listed; the segments of the others are there all the same.
//
// To go through the line, call it with the last id that it returned until it returns
// none: then a segment in trouble at the head keeps none behind it back.
func (s *Spool) Segments(after string) ([]Segment, error) { return s.store.list(after, maxListed) }

// PassOver says that a segment cannot be shipped for a reason of its own. It is
// left out of the line for a second, and twice as long after each further call,
// up to five minutes.
func (s *Spool) PassOver(id string) { s.store.passOver(id) }

// Read packs a segment. Damaged records are skipped, whole ones before and after
// them are kept. A segment that cannot be read is passed over as by PassOver.
func (s *Spool) Read(seg Segment) (Batch, error) {
	b, err := s.read(seg)
	if err != nil && !errors.Is(err, ErrQuarantined) {
		s.store.passOver(seg.ID)
	}
	return b, err
}

func (s *Spool) read(seg Segment) (Batch, error) {
	records, err := s.store.records(seg.ID)
	if err != nil && !errors.Is(err, errTooLarge) {
		return Batch{}, fmt.Errorf("read segment: %w", err)
	}
	b := Batch{ID: seg.ID}
	end, damaged := scan(seg.ID, records, func(c *Click) {
		if b.Clicks == 0 || c.At.Before(b.Oldest) {
			b.Oldest = c.At
		}
		b.Clicks++
	})
	b.damaged = damaged
	if b.Clicks == 0 {
		if err := s.store.quarantine(seg.ID, damaged); err != nil {
			return Batch{}, err
		}
		return Batch{}, fmt.Errorf("read segment %s: %w", seg.ID, ErrQuarantined)
	}
	b.Payload = encodePayload(records[:end], b.Clicks)
	return b, nil
}

// Shipped says that a batch, as Read returned it, is committed. Its segment is kept
// for Options.Keep, and what was damaged of it is counted. Saying it again does no
// harm. If the disk does not let the segment be moved, it stays in line.
func (s *Spool) Shipped(b Batch) error {
	news, err := s.store.ship(b.ID)
	if err != nil {
		return fmt.Errorf("keep shipped segment: %w", err)
	}
	if news && len(b.damaged) > 0 {
		s.opt.Metrics.countDamage(b.damaged)
		s.opt.Log.Error("damaged records skipped", slog.String("segment", b.ID), slog.Any("damaged", b.damaged), slog.Int("whole", b.Clicks))
	}
	return nil
}

// Reship puts the segments that were shipped before a moment and are still kept
// back in line, for a Postgres that lost what it had committed, such as a
// replica that was promoted while it lagged. It returns how many, and how many
// have to wait until the line is shorter: a quarter of Options.MaxBytes is left
// to new clicks. Those are put back by a later call with the same moment; no
// segment is put back twice for one moment.
func (s *Spool) Reship(before time.Time) (put, waiting int, err error) {
	room := func() int64 {
		return s.opt.MaxBytes - s.opt.MaxBytes/4 - s.store.bytes.Load() - s.active.Load()
	}
	put, waiting, err = s.store.reship(before, room)
	if put > 0 {
		notify(s.sealed)
	}
	if err != nil {
		err = fmt.Errorf("reship kept segments: %w", err)
	}
	return put, waiting, err
}

// Gone says how far a folder is empty: of its segments that were ever in this
// spool, those whose id is below Below were shipped and removed. A copy of the
// folder elsewhere may hold more, or less.
type Gone struct {
	Folder string
	Below  string // of the form of an id; ids of a folder are all of one length
}

// RemoveExpired removes segments shipped longer than Options.Keep before now, and
// segments quarantined 30 days before the clock of Options.Now. It returns how far
// those folders are empty in which that changed since Confirmed was told, and goes
// on returning each of them until it is confirmed, across restarts. An error may
// come beside it: one folder in trouble does not keep back the others.
//
// A power cut may bring a removed segment back. It was shipped, so that the
// ledger knows it or finds it below what was confirmed.
func (s *Spool) RemoveExpired(now time.Time) ([]Gone, error) {
	limit := now.Add(-s.opt.Keep)
	expireErr := s.store.expire(func(path string, _ int64) bool {
		info, err := s.disk.stat(path)
		return err == nil && !info.ModTime().After(limit)
	})
	if expireErr != nil {
		expireErr = fmt.Errorf("remove kept segments: %w", expireErr)
	}
	quarantineErr := s.store.emptyQuarantine(s.opt.Now())
	if quarantineErr != nil {
		quarantineErr = fmt.Errorf("empty quarantine: %w", quarantineErr)
	}
	gone, err := s.store.allGone()
	if err != nil {
		err = fmt.Errorf("list removed segments: %w", err)
	}
	return gone, errors.Join(expireErr, quarantineErr, err)
}

// Confirmed says that the ledger knows for good how far these folders are empty.
// Folders that are not this spool's are ignored.
func (s *Spool) Confirmed(gone []Gone) error {
	if err := s.store.confirmed(gone); err != nil {
		return fmt.Errorf("forget removed segments: %w", err)
	}
	return nil
}

// Adopt takes over the folders below Options.Dir whose owner is gone and
// returns how many segments that added. Folders with an owner are not opened.
func (s *Spool) Adopt() (segments int, err error) {
	segments, err = s.store.adopt()
	if segments > 0 {
		notify(s.sealed)
	}
	return segments, err
}

// OpenForShipping opens what a vanished process left: dir is one of its
// folders, or a folder of such folders. The spool takes no clicks; Segments,
// Read, Shipped, Reship, RemoveExpired, Confirmed and Close work as usual. It
// is an error if there is no folder, if none is free, or (a [ForeignError]) if all
// that are free belong to another installation than [Options].Installation.
func OpenForShipping(dir string, o Options) (*Spool, error) {
	o.Dir = dir
	o.MaxBytes = math.MaxInt64 // there are no new clicks to leave room for
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := newSpool(o, realDisk(), usualPatience)
	s.closed = true
	s.chooseRefusal()
	close(s.writerDone)
	close(s.sealerDone)
	if folderName.MatchString(filepath.Base(dir)) {
		_, err = s.store.adoptOne(dir)
	} else {
		_, err = s.store.adopt()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open spool to ship: %w", err), s.Close())
	}
	if held := s.Foreign(); len(s.store.folders) == 0 && len(held) > 0 {
		return nil, errors.Join(fmt.Errorf("open spool to ship: %w", &ForeignError{held}), s.Close())
	}
	if len(s.store.folders) == 0 {
		return nil, errors.Join(fmt.Errorf("open spool to ship: no folder in %s without a living owner", dir), s.Close())
	}
	notify(s.sealed)
	return s, nil
}
