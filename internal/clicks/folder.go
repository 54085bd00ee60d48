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
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/files"
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
	folderName     = regexp.MustCompile(`^\d{8}t\d{6}-[0-9a-f]{16}$`)
	installationID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	segmentName    = regexp.MustCompile(`^(\d{8}t\d{6}-[0-9a-f]{16})-\d{10,}$`)
)

// newFolderID returns a new name for a folder. Names sort by age and never repeat, not
// even on different machines.
func newFolderID() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return time.Now().UTC().Format("20060102t150405") + "-" + hex.EncodeToString(random[:])
}

// folder is a spool folder whose lock this process holds.
type folder struct {
	id           string
	path         atomic.Pointer[string] // its path; it may be moved while it is in use
	disk         disk
	lock         *os.File // which also names the installation that the clicks belong to
	own          bool     // made by this process, which may add segments
	seq          int      // of the next segment; the sealer's
	unsealedLeft bool     // adopted with files that could not be sealed
	lost         bool     // it was moved where this process cannot reach it

	// installation is the name that the lock holds, or will hold once the disk lets it
	// be written (named). It is "" while the installation is not known.
	installation string
	named        bool

	// quit says that an own folder gets no more files. When its last file is sealed, it
	// is treated like an adopted folder.
	quit atomic.Bool
	// unsealed is the number of the oldest file of an own folder that is not sealed
	// yet. Only the sealer moves it, because only the sealer knows unsealedSeqs.
	unsealed     atomic.Int64
	unsealedSeqs map[int]bool
	confirmed    string // the ledger knows that the folder is empty below
}

func (f *folder) dir() string { return *f.path.Load() }

// begin returns the number for a new file. The file counts as unsealed until end is
// called.
func (f *folder) begin() (seq int) {
	seq = f.seq
	f.seq++ // counted even if the file cannot be made: a number is used only once
	if f.unsealedSeqs == nil {
		f.unsealedSeqs = make(map[int]bool)
	}
	f.unsealedSeqs[seq] = true
	return seq
}

// end says that a file is sealed or does not exist.
func (f *folder) end(seq int) {
	delete(f.unsealedSeqs, seq)
	oldest := f.seq
	for seq := range f.unsealedSeqs {
		oldest = min(oldest, seq)
	}
	f.unsealed.Store(int64(oldest))
}

func (f *folder) open(id string) string   { return filepath.Join(f.dir(), id+suffixOpen) }
func (f *folder) sealed(id string) string { return filepath.Join(f.dir(), id+suffixSealed) }
func (f *folder) bad(id string) string    { return filepath.Join(f.dir(), id+suffixBad) }
func (f *folder) kept(id string) string   { return filepath.Join(f.dir(), keptName, id+suffixSealed) }

func (f *folder) gone(id string) string { return filepath.Join(f.dir(), goneName, id+suffixSealed) }

// makeFolder creates a folder below dir and locks it.
func makeFolder(d disk, dir string, durable bool) (*folder, error) {
	if err := d.mkdirAll(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, newFolderID())
	if err := d.mkdir(path); err != nil {
		return nil, err
	}
	f, err := adoptFolder(d, path)
	if err == nil && durable {
		err = errors.Join(d.syncDir(path), d.syncDir(dir))
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.unlock())
		}
		if !errors.Is(err, files.ErrLocked) {
			removeUnused(d, path) // or every try would leave one behind
		}
		return nil, err
	}
	f.own = true
	return f, nil
}

// removeUnused removes the parts of a folder that could not be made. It leaves a folder
// alone that holds any file besides the lock.
func removeUnused(d disk, path string) {
	for _, name := range []string{keptName, goneName, lockName, ""} {
		_ = d.remove(filepath.Join(path, name)) // at worst an adopter does
	}
}

// adoptFolder locks a folder without an owner. If the folder has one, the error is
// files.ErrLocked.
func adoptFolder(d disk, path string) (*folder, error) {
	// The owner may have died before it made the file.
	lock, err := d.openLock(filepath.Join(path, lockName))
	if err != nil {
		return nil, err
	}
	f := &folder{id: filepath.Base(path), disk: d, lock: lock}
	f.path.Store(&path)
	if err := f.takeLock(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	for _, dir := range []string{keptName, goneName} {
		err := d.mkdir(filepath.Join(path, dir))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, lock.Close())
		}
	}
	if err := f.readName(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return f, nil
}

// readName reads the name of the installation that the folder belongs to. There is no
// name in folders of releases that did not write it yet, and in folders whose owner
// never reached Postgres. A name that a power cut left incomplete counts as none.
func (f *folder) readName() error {
	text := make([]byte, 64)
	n, err := f.disk.readAt(f.lock, text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the name of the installation: %w", err)
	}
	if name, whole := strings.CutSuffix(string(text[:n]), "\n"); whole && installationID.MatchString(name) {
		f.installation, f.named = name, true
	}
	return nil
}

// name makes the folder belong to an installation. If it returns an error, the folder
// belongs to it only until this process ends.
func (f *folder) name(installation string) error {
	if f.named && f.installation == installation {
		return nil
	}
	f.installation, f.named = installation, false
	_, err := f.disk.writeAt(f.lock, []byte(installation+"\n"), 0)
	if err == nil {
		err = f.disk.sync(f.lock)
	}
	if err != nil {
		return fmt.Errorf("write the name of the installation: %w", err)
	}
	f.named = true
	return nil
}

func (f *folder) takeLock() error {
	if err := files.TryLock(f.lock); err != nil {
		return fmt.Errorf("lock spool folder: %w", err)
	}
	// The file may have been removed, with its folder, between open and lock.
	there, err := f.inPlace()
	if err == nil && !there {
		err = files.ErrLocked
	}
	return err
}

// inPlace reports whether the folder is still where it was: whether the lock at its
// path is the one that this process holds.
func (f *folder) inPlace() (bool, error) {
	held, err := f.lock.Stat()
	if err != nil {
		return false, err
	}
	named, err := f.disk.stat(filepath.Join(f.dir(), lockName))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	return err == nil && os.SameFile(held, named), err
}

// errRemoved says that a folder was deleted while it was in use.
var errRemoved = errors.New("spool folder was removed")

// find returns the directory that a folder was moved to.
func (f *folder) find() (dir string, err error) {
	held, err := f.lock.Stat()
	if err != nil {
		return "", err
	}
	if isUnlinked(held) {
		return "", errRemoved
	}
	path, err := f.disk.pathOf(f.lock)
	if err != nil {
		return "", err
	}
	named, err := f.disk.stat(path)
	if err != nil {
		return "", err
	}
	if !os.SameFile(held, named) {
		return "", fmt.Errorf("%s is another file", path)
	}
	return filepath.Dir(path), nil
}

// isUnlinked reports whether a file has no name anymore.
func isUnlinked(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}

// unlock releases the folder, so that any process can adopt it.
func (f *folder) unlock() error { return files.Unlock(f.lock) }

// removeIfEmpty removes the folder if nothing is left in it. The lock is held
// until the folder is gone, so that no other process adopts half a folder.
func (f *folder) removeIfEmpty() (removed bool, err error) {
	root := f.dir()
	kept, gone := filepath.Join(root, keptName), filepath.Join(root, goneName)
	for _, dir := range []string{root, kept, gone} {
		empty := true
		err := f.disk.readDir(dir, func(e fs.DirEntry) {
			if dir != root || !slices.Contains([]string{lockName, keptName, goneName}, e.Name()) {
				empty = false
			}
		})
		if err != nil || !empty {
			return false, err
		}
	}
	for _, path := range []string{kept, gone, filepath.Join(root, lockName), root} {
		if err := f.disk.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, f.unlock()
}

// firstIDs returns the oldest segments in dir, at most limit, sorted: those after the
// given one ("" for all) that wanted accepts (nil for all). However many files there
// are, it holds at most 2*limit names in memory. With an error it returns the segments
// that it found before it.
func (f *folder) firstIDs(dir, after string, limit int, wanted func(id string) bool) ([]string, error) {
	var ids []string
	err := f.disk.readDir(dir, func(e fs.DirEntry) {
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

// segmentOf returns the id of the segment in a directory entry, if the entry is a file
// of this folder with the given suffix.
func (f *folder) segmentOf(e fs.DirEntry, suffix string) (id string, ok bool) {
	id, ok = strings.CutSuffix(e.Name(), suffix)
	if !ok || !e.Type().IsRegular() || folderOf(id) != f.id {
		return "", false
	}
	return id, true
}

func segmentID(folder string, seq int) string { return fmt.Sprintf("%s-%010d", folder, seq) }

// nextID returns the id after the given one.
func nextID(id string) string { return segmentID(folderOf(id), seqOf(id)+1) }

// seqOf returns the number of a segment in its folder.
func seqOf(id string) int {
	seq, _ := strconv.Atoi(id[len(folderOf(id))+1:]) // digits, as it is an id
	return seq
}

// folderOf returns the folder a segment's id belongs to, "" if it is no id.
func folderOf(id string) string {
	m := segmentName.FindStringSubmatch(id)
	if m == nil {
		return ""
	}
	return m[1]
}
