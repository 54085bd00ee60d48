package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	format = 1
	// manifestMax is much larger than any manifest.
	manifestMax = 1 << 20
	// windowMax bounds how much memory a file can make its reader allocate.
	windowMax = 128 << 20
)

// ErrDamaged says that a file does not match its manifest.
var ErrDamaged = errors.New("archive is damaged")

// Sum describes a data file.
type Sum struct {
	Rows   int64  // records, without the header
	Bytes  int64  // of the file as it is kept
	SHA256 string // of the file as it is kept, in hexadecimal
}

// Manifest describes one part of a month. It is written last: a data file without a
// manifest was left by a killed process and is ignored.
type Manifest struct {
	Format    int       `json:"format"`
	Month     string    `json:"month"` // such as 2025-03
	Part      int       `json:"part"`  // from 1
	File      string    `json:"file"`  // zstd-compressed CSV with a header line, as COPY writes it
	Rows      int64     `json:"rows"`
	Bytes     int64     `json:"bytes"`
	SHA256    string    `json:"sha256"` // of File
	Columns   []string  `json:"columns"`
	CreatedAt time.Time `json:"created_at"`
	// Installation is the installation of the database that the rows come from; it is
	// empty in manifests of earlier releases.
	Installation string `json:"installation,omitempty"`
	// Replaces is the number of the last part whose rows this part has too, as after a
	// restore: the parts up to that number are out of date. 0 means none.
	Replaces int `json:"replaces,omitempty"`
}

// Sum returns the sum of the file as the manifest states it.
func (m *Manifest) Sum() Sum { return Sum{m.Rows, m.Bytes, m.SHA256} }

// IsOf reports whether a part is of an installation. A part that names none counts as
// one of any.
func (m *Manifest) IsOf(installation string) bool {
	return m.Installation == "" || m.Installation == installation
}

// NewFileName returns a new name for the data of a part, which no other attempt uses,
// such as 2025-03.part-0001.9c1d04be2a6f7713.csv.zst.
func NewFileName(month time.Time, part int) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return partName(month.Format("2006-01"), part) + "." + hex.EncodeToString(random[:]) + ".csv.zst"
}

// dataFile matches the names that NewFileName makes. A name in a manifest has to match
// it too, so that a forged manifest cannot lead to a file outside of the archive.
var dataFile = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}\.part-[0-9]{4,}\.[0-9a-f]{16}\.csv\.zst$`)

func partName(month string, part int) string { return fmt.Sprintf("%s.part-%04d", month, part) }

// WriteData makes a data file from the CSV that write writes, with a header line.
func WriteData(ctx context.Context, store Store, name string, write func(io.Writer) error) (sum Sum, err error) {
	err = store.Create(ctx, name, func(w io.Writer) error {
		meter := &meter{sum: sha256.New(), to: w} // anew, in case a store begins again
		encoder, err := zstd.NewWriter(meter, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		var rows counter
		if err := write(io.MultiWriter(encoder, &rows)); err != nil {
			_ = encoder.Close() // the file is given up
			return err
		}
		if err := encoder.Close(); err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		sum = meter.result(rows.rows())
		return nil
	})
	return sum, err
}

// ReadData reads a data file to its end and returns its sum. read gets the CSV and need
// not read all of it; it may be nil.
func ReadData(ctx context.Context, store Store, name string, read func(io.Reader) error) (sum Sum, err error) {
	file, err := store.Open(ctx, name)
	if err != nil {
		return sum, err
	}
	defer file.Close() //nolint:errcheck // only read
	meter := &meter{sum: sha256.New()}
	raw := io.TeeReader(file, meter)
	decoder, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(windowMax))
	if err != nil {
		return sum, fmt.Errorf("decompress: %w", err)
	}
	defer decoder.Close()
	var rows counter
	csv := io.TeeReader(decoder, &rows)
	if read != nil {
		if err := read(csv); err != nil {
			return sum, err
		}
	}
	if _, err := io.Copy(io.Discard, csv); err != nil {
		return sum, fmt.Errorf("decompress: %w: %w", ErrDamaged, err)
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return sum, fmt.Errorf("read archive file: %w", err)
	}
	return meter.result(rows.rows()), nil
}

// Pieces cuts CSV as COPY writes it into pieces of whole records, each of size bytes or
// up to a record more, and calls do with each in turn. The first piece starts with the
// header. A piece is valid until do returns.
func Pieces(csv io.Reader, size int, do func(piece []byte) error) error {
	buf := make([]byte, 0, size)
	seen, whole, quoted := 0, 0, false // up to which was looked at, and where its last record ends
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, size)
		}
		n, err := csv.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		for ; seen < len(buf); seen++ {
			switch {
			case buf[seen] == '"':
				quoted = !quoted
			case buf[seen] == '\n' && !quoted:
				whole = seen + 1
			}
		}
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return err
		}
		if ended {
			whole = len(buf)
		}
		if whole >= size || ended && whole > 0 {
			if err := do(buf[:whole]); err != nil {
				return err
			}
			buf = append(buf[:0], buf[whole:]...)
			seen, whole = seen-whole, 0
		}
		if ended {
			return nil
		}
	}
}

// WriteManifest writes the manifest of a part, which completes the part. If that part
// has a manifest already, the error wraps fs.ErrExist.
func WriteManifest(ctx context.Context, store Store, m Manifest) error {
	m.Format = format
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal manifest: %w", err)
	}
	return store.Create(ctx, partName(m.Month, m.Part)+".json", func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// Manifests returns the parts of a month, such as 2025-03, in order. If month is empty,
// it returns those of every month.
func Manifests(ctx context.Context, store Store, month string) ([]Manifest, error) {
	if month != "" {
		month += ".part-"
	}
	names, err := store.List(ctx, month)
	if err != nil {
		return nil, err
	}
	var manifests []Manifest
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") || !strings.Contains(name, ".part-") {
			continue
		}
		m, err := readManifest(ctx, store, name)
		if err != nil {
			return nil, fmt.Errorf("read manifest %s: %w", name, err)
		}
		manifests = append(manifests, m)
	}
	return manifests, nil
}

// Current returns the parts of a month that are not replaced by another part.
func Current(parts []Manifest) []Manifest {
	last := 0
	for _, m := range parts {
		last = max(last, m.Replaces)
	}
	return slices.DeleteFunc(slices.Clone(parts), func(m Manifest) bool { return m.Part <= last })
}

// Withdraw removes a data file that must not become part of the archive. If a manifest
// names it, that is removed first, so that no manifest is ever left without its file:
// writing a manifest may have succeeded although it returned an error. If there is
// neither, that is no error.
func Withdraw(ctx context.Context, store Store, month, file string) error {
	manifests, err := Manifests(ctx, store, month)
	if err != nil {
		return err
	}
	for _, m := range manifests {
		if m.File != file {
			continue
		}
		if err := store.Remove(ctx, partName(m.Month, m.Part)+".json"); err != nil {
			return err
		}
	}
	return store.Remove(ctx, file)
}

func readManifest(ctx context.Context, store Store, name string) (m Manifest, err error) {
	file, err := store.Open(ctx, name)
	if err != nil {
		return m, err
	}
	defer file.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(file, manifestMax))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	switch {
	case m.Format != format:
		return m, fmt.Errorf("format %d is not known to this release", m.Format)
	case partName(m.Month, m.Part)+".json" != name || !strings.HasPrefix(m.File, partName(m.Month, m.Part)+"."):
		return m, fmt.Errorf("%w: it describes another part", ErrDamaged)
	case !dataFile.MatchString(m.File):
		return m, fmt.Errorf("%w: %q is not the name of a data file", ErrDamaged, m.File)
	}
	return m, nil
}

// meter computes the sum of a file while it is written or read.
type meter struct {
	sum   hash.Hash
	bytes int64
	to    io.Writer // nil writes nowhere
}

func (m *meter) Write(p []byte) (int, error) {
	n := len(p)
	if m.to != nil {
		var err error
		if n, err = m.to.Write(p); err != nil {
			return n, err
		}
	}
	m.bytes += int64(n)
	return m.sum.Write(p[:n])
}

func (m *meter) result(rows int64) Sum {
	return Sum{Rows: rows, Bytes: m.bytes, SHA256: hex.EncodeToString(m.sum.Sum(nil))}
}

// counter counts the records of CSV as COPY writes it: a line break within quotes does
// not end a record.
type counter struct {
	records int64
	quoted  bool
}

func (c *counter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '"')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if !c.quoted {
			c.records += int64(bytes.Count(part, []byte{'\n'}))
		}
		if i < 0 {
			break
		}
		c.quoted = !c.quoted
		p = p[i+1:]
	}
	return n, nil
}

// rows returns the number of records without the header.
func (c *counter) rows() int64 { return max(0, c.records-1) }
