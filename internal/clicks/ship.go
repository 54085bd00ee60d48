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

// maxListed is the largest number of segments that one call of Segments returns.
const maxListed = 256

// ErrQuarantined is wrapped by the error of Read for a segment without one whole
// record. Read has renamed, counted and logged that segment, and it is not listed
// again.
var ErrQuarantined = errors.New("segment quarantined: it has no whole record")

// Segments returns segments that are ready to ship, oldest first and at most 256: those
// after the given id ("" for all). Segments of adopted folders are included; those that
// are left out for a while (PassOver) are not. If there is an error, some folders could
// not be listed, and the segments of the others are returned all the same.
//
// To get all segments, call it again with the last id that it returned, until it
// returns none. That way a segment that fails does not hold back those after it.
func (s *Spool) Segments(after string) ([]Segment, error) { return s.store.list(after, maxListed) }

// PassOver says that a segment cannot be shipped for a reason of its own. It is
// left out of the line for a second, and twice as long after each further call,
// up to five minutes.
func (s *Spool) PassOver(id string) { s.store.passOver(id) }

// Read packs a segment. Damaged records are skipped; whole ones before and after them
// are kept. Read calls PassOver for a segment that it cannot read.
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

// Shipped says that a batch, as Read returned it, is committed. Its segment is kept for
// Options.Keep, and its damaged stretches are counted. Calling it twice does no harm.
// If the disk does not allow the segment to be moved, it stays in line.
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

// Reship puts segments back in line: those that were shipped before the given moment
// and are still kept. It is for a Postgres that lost committed data, such as a replica
// that lagged when it was promoted. Reship returns how many it put back, and how many
// have to wait until the line is shorter, because a quarter of Options.MaxBytes is left
// to new clicks. A later call with the same moment puts those back; no segment is put
// back twice for the same moment.
func (s *Spool) Reship(before time.Time) (put, waiting int, err error) {
	room := func() int64 {
		return s.opt.MaxBytes - s.opt.MaxBytes/4 - s.store.bytes.Load() - s.active.Load()
	}
	put, waiting, err = s.store.reship(before, room)
	if put > 0 {
		notify(s.sealed)
	}
	return put, waiting, wrap("reship kept segments", err)
}

// Gone says up to which id a folder is empty: of its segments that were ever in this
// spool, all with an id below Below were shipped and removed. A copy of the folder
// elsewhere may hold more segments, or fewer.
type Gone struct {
	Folder string
	Below  string // of the form of an id; ids of a folder are all of one length
}

// RemoveExpired removes segments that were shipped longer than Options.Keep before now,
// and segments that were quarantined 30 days before the time of Options.Now. It
// returns, for each folder in which segments were removed, the id below which it is
// empty, and does so on every call, across restarts, until Confirmed is called for it.
// It may return an error as well: trouble with one folder does not stop it from going
// on with the others.
//
// A power cut may bring a removed segment back. That does no harm: it was shipped, so
// the ledger either still has its row or knows that its id is below a confirmed one.
func (s *Spool) RemoveExpired(now time.Time) ([]Gone, error) {
	limit := now.Add(-s.opt.Keep)
	expireErr := s.store.expire(func(path string, _ int64) bool {
		info, err := s.disk.stat(path)
		return err == nil && !info.ModTime().After(limit)
	})
	quarantineErr := s.store.emptyQuarantine(s.opt.Now())
	gone, err := s.store.allGone()
	return gone, errors.Join(wrap("remove kept segments", expireErr), wrap("empty quarantine", quarantineErr),
		wrap("list removed segments", err))
}

// Confirmed says that the ledger has durably stored how far these folders are empty.
// Folders of other spools are ignored.
func (s *Spool) Confirmed(gone []Gone) error {
	return wrap("forget removed segments", s.store.confirmed(gone))
}

// wrap adds the failed action to an error. It returns nil for nil.
func wrap(action string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}

// Adopt takes over the folders below Options.Dir that have no owner, and returns how
// many segments are in them. Folders with an owner are not opened.
func (s *Spool) Adopt() (segments int, err error) {
	segments, err = s.store.adopt()
	if segments > 0 {
		notify(s.sealed)
	}
	return segments, err
}

// OpenForShipping opens what a process that is gone left behind: dir is one of its
// folders, or a folder of such folders. The spool takes no clicks; Segments, Read,
// Shipped, Reship, RemoveExpired, Confirmed and Close work as usual. It is an error if
// there is no folder, or if all of them have an owner. It is a [ForeignError] if all
// that have none belong to another installation than [Options].Installation.
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
