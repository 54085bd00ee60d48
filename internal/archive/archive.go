// Package archive keeps months of events that were taken out of the database:
// compressed CSV files in a folder or in S3-compatible storage, each with a manifest
// that has its number of rows and its checksum. The package uses no database.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Store keeps files. A file is either complete or does not exist, and is never
// overwritten. It is safe for concurrent use.
type Store interface {
	// Create makes a file whose contents write writes. The file exists once Create has
	// returned nil; after an error it does not. An existing file with that name is not
	// changed: the error then wraps fs.ErrExist.
	Create(ctx context.Context, name string, write func(io.Writer) error) error
	// Open returns a file, which the caller closes. If there is no such file, the
	// error wraps fs.ErrNotExist.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// List returns the names of the files that start with prefix, in order.
	List(ctx context.Context, prefix string) ([]string, error)
	// Remove removes a file and the leftovers of an unfinished Create of it. If there
	// is none, that is no error.
	Remove(ctx context.Context, name string) error
	// String returns the place of the store, without credentials.
	String() string
}

// S3 says how to reach S3-compatible storage. If it has no keys, the role of the
// machine or the container provides them.
type S3 struct {
	Endpoint     string // a URL; empty means AWS
	Region       string
	AccessKey    string
	SecretKey    string
	SessionToken string
	// Stall is how long a request may go without progress before it fails. Default a
	// minute.
	Stall time.Duration
}

const s3Scheme = "s3://"

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Check returns an error for a target that Open would reject.
func Check(target string) error {
	if target == "" {
		return errors.New("it is empty")
	}
	rest, isS3 := strings.CutPrefix(target, s3Scheme)
	if !isS3 {
		if strings.Contains(target, "://") {
			return errors.New("it must be a folder or start with s3://")
		}
		return nil
	}
	if bucket, _, _ := strings.Cut(rest, "/"); !bucketName.MatchString(bucket) {
		return fmt.Errorf("%q is not the name of a bucket", bucket)
	}
	return nil
}

// Open returns the store that a target names: a folder, which is made when
// something is kept in it, or s3://bucket/prefix. Nothing is dialed.
func Open(target string, o S3) (Store, error) {
	if err := Check(target); err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	rest, isS3 := strings.CutPrefix(target, s3Scheme)
	if !isS3 {
		dir, err := filepath.Abs(target)
		if err != nil {
			return nil, fmt.Errorf("open archive: %w", err)
		}
		return folder{dir}, nil
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	return openBucket(bucket, strings.TrimPrefix(path.Clean("/"+prefix), "/"), o)
}
