package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/signpost/signpost/internal/files"
)

// folder is a Store in a folder of the file system.
type folder struct{ dir string }

func (f folder) String() string { return f.dir }

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

// Create writes a file under a temporary name, syncs it and then links it to its own
// name, which fails if there is a file with that name. A rename would replace that
// file.
func (f folder) Create(_ context.Context, name string, write func(io.Writer) error) (err error) {
	if err := os.MkdirAll(f.dir, 0o750); err != nil {
		return fmt.Errorf("make archive folder: %w", err)
	}
	file, err := os.CreateTemp(f.dir, "."+name+".*.tmp")
	if err != nil {
		return fmt.Errorf("create archive file: %w", err)
	}
	defer func() {
		_ = file.Close() // closed before, unless something failed
		if rmErr := os.Remove(file.Name()); err == nil && rmErr != nil {
			err = fmt.Errorf("remove temporary archive file: %w", rmErr)
		}
	}()
	if err := write(file); err != nil {
		return err
	}
	if err := errors.Join(file.Chmod(0o640), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write archive file: %w", err)
	}
	if err := os.Link(file.Name(), f.path(name)); err != nil {
		return fmt.Errorf("name archive file: %w", err)
	}
	if err := files.SyncDir(f.dir); err != nil {
		return fmt.Errorf("sync archive folder: %w", err)
	}
	return nil
}

func (f folder) Open(_ context.Context, name string) (io.ReadCloser, error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, fmt.Errorf("open archive file: %w", err)
	}
	return file, nil
}

func (f folder) List(_ context.Context, prefix string) ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list archive folder: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func (f folder) Remove(ctx context.Context, name string) error {
	left, err := f.List(ctx, "."+name+".")
	if err != nil {
		return err
	}
	for _, name := range append(left, name) {
		if err := os.Remove(f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove archive file: %w", err)
		}
	}
	return nil
}
