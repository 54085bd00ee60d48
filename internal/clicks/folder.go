package clicks

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockName     = "lock"
	keptName     = "kept"
	goneName     = "gone"
	suffixOpen   = ".open"
	suffixSealed = ".seg"
	suffixBad    = ".bad"
)

var (
	folderName  = regexp.MustCompile(`^\d{8}t\d{6}-[0-9a-f]{16}$`)
	segmentName = regexp.MustCompile(`^(\d{8}t\d{6}-[0-9a-f]{16})-\d{10,}$`)
)

// errLocked says that a folder has an owner.
var errLocked = errors.New("folder is locked")

// newFolderID names a folder so that names sort by age and never repeat, on
// whatever machine they are made.
func newFolderID() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return time.Now().UTC().Format("20060102t150405") + "-" + hex.EncodeToString(random[:])
}

// folder is a spool folder whose lock this process holds.
type folder struct {
	id   string
	path string
	lock *os.File
	own  bool // made by this process, which may add segments
	seq  int  // of the next segment; the keeper's
	left bool // adopted with files that could not be sealed
}

func (f *folder) nextID() string {
	id := segmentID(f.id, f.seq)
	f.seq++ // also if the file cannot be made: a number is used once
	return id
}

func (f *folder) open(id string) string   { return filepath.Join(f.path, id+suffixOpen) }
func (f *folder) sealed(id string) string { return filepath.Join(f.path, id+suffixSealed) }
func (f *folder) bad(id string) string    { return filepath.Join(f.path, id+suffixBad) }
func (f *folder) kept(id string) string   { return filepath.Join(f.path, keptName, id+suffixSealed) }

func (f *folder) gone(id string) string { return filepath.Join(f.path, goneName, id+suffixSealed) }

// makeFolder creates a folder below dir and locks it.
func makeFolder(dir string, durable bool) (*folder, error) {
	if err := mkdirDurable(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, newFolderID())
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	f, err := adoptFolder(path)
	if err == nil && durable {
		err = errors.Join(syncDir(path), syncDir(dir))
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.unlock())
		}
		if !errors.Is(err, errLocked) {
			removeUnused(path) // or every try would leave one behind
		}
		return nil, err
	}
	f.own = true
	return f, nil
}

// removeUnused removes what there is of a folder that could not be made. It
// removes nothing that holds a file besides the lock.
func removeUnused(path string) {
	for _, name := range []string{keptName, goneName, lockName, ""} {
		_ = os.Remove(filepath.Join(path, name)) // at worst an adopter does
	}
}

// adoptFolder locks a folder whose owner is gone. It returns errLocked if it
// has one.
func adoptFolder(path string) (*folder, error) {
	// O_CREATE: the owner may have died before it made the file.
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	f := &folder{id: filepath.Base(path), path: path, lock: lock}
	if err := f.takeLock(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	for _, dir := range []string{keptName, goneName} {
		err := os.Mkdir(filepath.Join(path, dir), 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, lock.Close())
		}
	}
	return f, nil
}

func (f *folder) takeLock() error {
	err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	if err != nil {
		return fmt.Errorf("lock spool folder: %w", err)
	}
	// The file may have been removed, with its folder, between open and lock.
	held, err := f.lock.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(f.lock.Name())
	if err != nil {
		return err
	}
	if !os.SameFile(held, named) {
		return errLocked
	}
	return nil
}

// unlock releases the folder, for anybody to adopt.
func (f *folder) unlock() error { return f.lock.Close() }

// removeIfEmpty removes the folder if nothing is left in it. The lock is held
// until the folder is gone, so that nobody adopts half a folder.
func (f *folder) removeIfEmpty() (removed bool, err error) {
	kept, gone := filepath.Join(f.path, keptName), filepath.Join(f.path, goneName)
	for _, dir := range []string{f.path, kept, gone} {
		names, err := firstNames(dir, 4)
		if err != nil {
			return false, err
		}
		for _, name := range names {
			if dir != f.path || !slices.Contains([]string{lockName, keptName, goneName}, name) {
				return false, nil
			}
		}
	}
	for _, path := range []string{kept, gone, f.lock.Name(), f.path} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, f.unlock()
}

// firstNames returns at most limit names in a directory, which may be missing.
func firstNames(path string, limit int) ([]string, error) {
	d, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(limit)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, errors.Join(err, d.Close())
}

// eachFile calls visit for every entry of a directory, in no order, without
// holding more than a few in memory. A directory that does not exist is empty.
func eachFile(path string, visit func(fs.DirEntry)) error {
	d, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		entries, err := d.ReadDir(512)
		for _, e := range entries {
			visit(e)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, d.Close())
		}
	}
}

// firstIDs returns the oldest segments in dir that come after one ("" for all)
// and that wanted takes (nil for all), at most limit, sorted. However many there
// are, it holds no more than twice as many names. With an error it returns what
// it found up to there.
func (f *folder) firstIDs(d disk, dir, after string, limit int, wanted func(id string) bool) ([]string, error) {
	var ids []string
	err := d.readDir(dir, func(e fs.DirEntry) {
		id, ok := f.segmentOf(e, suffixSealed)
		if ok && id > after && (wanted == nil || wanted(id)) {
			ids = append(ids, id)
		}
		if len(ids) >= 2*limit {
			slices.Sort(ids)
			ids = ids[:limit]
		}
	})
	slices.Sort(ids)
	return ids[:min(len(ids), limit)], err
}

// segmentOf returns the segment an entry holds, if it is a file of this folder
// with that suffix.
func (f *folder) segmentOf(e fs.DirEntry, suffix string) (id string, ok bool) {
	id, ok = strings.CutSuffix(e.Name(), suffix)
	if !ok || !e.Type().IsRegular() || folderOf(id) != f.id {
		return "", false
	}
	return id, true
}

// folderOf returns the folder a segment's id belongs to, "" if it is no id.
func folderOf(id string) string {
	m := segmentName.FindStringSubmatch(id)
	if m == nil {
		return ""
	}
	return m[1]
}
