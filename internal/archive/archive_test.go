package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stores returns a folder, and a bucket of a server that speaks S3 over HTTP.
func stores(t *testing.T) map[string]Store {
	t.Helper()
	backend := s3mem.New()
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	require.NoError(t, backend.CreateBucket("events"))
	keys := S3{Endpoint: server.URL, Region: "us-east-1", AccessKey: "key", SecretKey: "secret"}
	found := map[string]Store{}
	for name, target := range map[string]string{
		"folder": filepath.Join(t.TempDir(), "some", "where"), "bucket": "s3://events", "prefix": "s3://events/some/where/",
	} {
		store, err := Open(target, keys)
		require.NoError(t, err)
		found[name] = store
	}
	return found
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func read(t *testing.T, s Store, name string) string {
	t.Helper()
	file, err := s.Open(t.Context(), name)
	require.NoError(t, err)
	defer file.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(file)
	require.NoError(t, err)
	return string(b)
}

func TestStores(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			if names, err := s.List(ctx, ""); err != nil || len(names) > 0 {
				t.Errorf("a new store has %v (%v)", names, err)
			}
			if _, err := s.Open(ctx, "nothing"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("open of nothing: %v", err)
			}
			for _, name := range []string{"b", "a1", "a2"} {
				require.NoError(t, s.Create(ctx, name, text("of "+name)))
			}
			if err := s.Create(ctx, "a1", text("another")); !errors.Is(err, fs.ErrExist) {
				t.Errorf("a second of one name: %v", err)
			}
			if got := read(t, s, "a1"); got != "of a1" {
				t.Errorf("the first was overwritten: %q", got)
			}
			broken := errors.New("broken")
			err := s.Create(ctx, "half", func(w io.Writer) error {
				_, _ = io.WriteString(w, "half")
				return broken
			})
			if !errors.Is(err, broken) {
				t.Errorf("a failed write: %v", err)
			}
			if names, err := s.List(ctx, ""); err != nil || !slices.Equal(names, []string{"a1", "a2", "b"}) {
				t.Errorf("list = %v (%v)", names, err)
			}
			for range 2 {
				assert.NoError(t, s.Remove(ctx, "a1"))
			}
			if names, err := s.List(ctx, "a"); err != nil || !slices.Equal(names, []string{"a2"}) {
				t.Errorf("list of a prefix after a removal = %v (%v)", names, err)
			}
		})
	}
}

// If a killed process left a part of a file in a folder, that is removed with the file.
func TestFolderRemovesLeftovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, S3{})
	require.NoError(t, err)
	for _, name := range []string{".part.123.tmp", ".part.456.tmp", ".partner.1.tmp"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600))
	}
	require.NoError(t, s.Remove(t.Context(), "part"))
	if names, err := s.List(t.Context(), ""); err != nil || !slices.Equal(names, []string{".partner.1.tmp"}) {
		t.Errorf("left: %v (%v)", names, err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for target, ok := range map[string]bool{
		"": false, "s3://": false, "s3://No": false, "gs://bucket": false, "s3:///x": false,
		"/var/archive": true, "archive": true, "s3://bucket": true, "s3://my.bucket-1/a/b/": true,
	} {
		if err := Check(target); (err == nil) != ok {
			t.Errorf("%q: %v", target, err)
		}
	}
	if _, err := Open("s3://bucket", S3{Endpoint: "minio:9000"}); err == nil {
		t.Error("an endpoint without a scheme was accepted")
	}
}

const table = "id,details\n1,\"{\"\"a\"\": \"\"b\nc\"\"}\"\n2,\"x\n\n\"\n3,\n"

func TestData(t *testing.T) {
	t.Parallel()
	month := time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			file := NewFileName(month, 1)
			wrote, err := WriteData(ctx, s, file, text(table))
			if err != nil || wrote.Rows != 3 || wrote.Bytes == 0 {
				t.Fatalf("wrote %+v, %v", wrote, err)
			}
			var csv bytes.Buffer
			got, err := ReadData(ctx, s, file, func(r io.Reader) error { _, err := csv.ReadFrom(r); return err })
			if err != nil || got != wrote || csv.String() != table {
				t.Errorf("read %+v, %v, %q", got, err, csv.String())
			}
			// If a reader does not read to the end, the sum is complete all the same.
			if got, err := ReadData(ctx, s, file, nil); err != nil || got != wrote {
				t.Errorf("read %+v, %v", got, err)
			}

			m := Manifest{Month: "2025-03", Part: 1, File: file, Rows: 3, Bytes: wrote.Bytes, SHA256: wrote.SHA256, Columns: []string{"id", "details"}}
			require.NoError(t, WriteManifest(ctx, s, m))
			if err := WriteManifest(ctx, s, m); !errors.Is(err, fs.ErrExist) {
				t.Errorf("a second manifest: %v", err)
			}
			for month, want := range map[string]int{"": 1, "2025-03": 1, "2025-04": 0} {
				if found, err := Manifests(ctx, s, month); err != nil || len(found) != want {
					t.Errorf("manifests of %q: %v (%v)", month, found, err)
				} else if want == 1 && (found[0].Sum() != wrote || found[0].File != file) {
					t.Errorf("manifest %+v", found[0])
				}
			}

			whole := read(t, s, file)
			for what, content := range map[string]string{
				"cut": whole[:len(whole)-1], "flipped": whole[:20] + string(whole[20]^1) + whole[21:],
				"longer": whole + "x", "short": whole[:1],
			} {
				require.NoError(t, s.Create(ctx, what, text(content)))
				if got, err := ReadData(ctx, s, what, nil); err == nil && got == wrote {
					t.Errorf("a file that is %s passes for whole", what)
				}
			}
			for name, content := range map[string]string{
				"2025-05.part-0001.json": "{", "2025-06.part-0001.json": `{"format": 2}`,
				"2025-07.part-0001.json": `{"format": 1, "month": "2025-07", "part": 2}`,
				"2025-08.part-0001.json": `{"format": 1, "month": "2025-08", "part": 1, "file": "2025-08.part-0001./../../passwd"}`,
				"2025-09.part-0001.json": `{"format": 1, "month": "2025-09", "part": 1, "file": "2025-09.part-0001.0123456789abcdef.csv.zst/../x.csv.zst"}`,
				"2025-10.part-0001.json": `{"format": 1, "month": "2025-10/..", "part": 1, "file": "2025-10.part-0001.0123456789abcdef.csv.zst"}`,
			} {
				require.NoError(t, s.Create(ctx, name, text(content)))
				if found, err := Manifests(ctx, s, name[:7]); err == nil {
					t.Errorf("manifest %s was taken for %+v", content, found)
				}
			}
		})
	}
}

// Pieces consist of whole records, and together are the same as the original.
func TestPieces(t *testing.T) {
	t.Parallel()
	for _, csv := range []string{"", "a", "id\n", table, table + "4,\"\"\"\n\"", table + "4,\"not ended\n"} {
		for size := 1; size <= len(csv)+2; size++ {
			var all []byte
			err := Pieces(iotest.OneByteReader(strings.NewReader(csv)), size, func(piece []byte) error {
				all = append(all, piece...)
				records := counter{}
				_, _ = records.Write(piece)
				if last := len(all) == len(csv); !last && (records.quoted || piece[len(piece)-1] != '\n' || len(piece) < size) {
					t.Errorf("pieces of %d of %q: %q", size, csv, piece)
				}
				return nil
			})
			if err != nil || string(all) != csv {
				t.Errorf("pieces of %d of %q are %q, %v", size, csv, all, err)
			}
		}
	}
	broken := errors.New("broken")
	if err := Pieces(iotest.ErrReader(broken), 1, func([]byte) error { return nil }); !errors.Is(err, broken) {
		t.Errorf("pieces of a broken file: %v", err)
	}
	if err := Pieces(strings.NewReader(table), 1, func([]byte) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("pieces that nobody takes: %v", err)
	}
}

// The data does not compress, and is too much for one piece of an upload.
func TestLargeData(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		if name == "prefix" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const rows = 300_000
			random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a fixed sequence
			line := make([]byte, 0, 200)
			sum, err := WriteData(t.Context(), s, "large", func(w io.Writer) error {
				for range rows + 1 {
					line = line[:0]
					for len(line) < 150 {
						line = append(line, byte('a'+random.IntN(26)), byte(0x80+random.IntN(128)))
					}
					line = append(line, '\n')
					if _, err := w.Write(line); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil || sum.Rows != rows || sum.Bytes < uploadPiece {
				t.Fatalf("wrote %+v, %v", sum, err)
			}
			if got, err := ReadData(t.Context(), s, "large", nil); err != nil || got != sum {
				t.Errorf("read %+v, %v; want %+v", got, err, sum)
			}
		})
	}
}

func TestS3OfAnUnreachableServer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(nil)
	server.Close()
	s, err := Open("s3://bucket/x", S3{Endpoint: server.URL, Region: "eu", AccessKey: "key", SecretKey: "hidden"})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := s.Create(ctx, "a", text("b")); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("create: %v", err)
	}
	if s.String() != "s3://bucket/x" {
		t.Errorf("it is called %s", s)
	}
}

func TestWithdraw(t *testing.T) {
	t.Parallel()
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			month := time.Date(2025, time.March, 1, 0, 0, 0, 0, time.UTC)
			var files []string
			for part := 1; part <= 2; part++ {
				file := NewFileName(month, part)
				sum, err := WriteData(t.Context(), store, file, text("a\n1\n"))
				require.NoError(t, err)
				m := Manifest{Month: "2025-03", Part: part, File: file, Rows: sum.Rows, Bytes: sum.Bytes, SHA256: sum.SHA256}
				require.NoError(t, WriteManifest(t.Context(), store, m))
				files = append(files, file)
			}
			for range 2 {
				require.NoError(t, Withdraw(t.Context(), store, "2025-03", files[0]))
				left, err := store.List(t.Context(), "")
				if want := []string{files[1], "2025-03.part-0002.json"}; err != nil || !slices.Equal(left, want) {
					t.Errorf("%v, %v are left, want %v", left, err, want)
				}
			}
		})
	}
}
