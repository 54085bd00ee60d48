package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	awsEndpoint = "https://s3.amazonaws.com"
	// An upload keeps one such piece in memory; storage takes 10,000 of them.
	uploadPiece = 32 << 20
	usualStall  = time.Minute
	// There are few tries, because each one on a connection that hangs takes Stall.
	tries = 5
)

// bucket is a Store in S3-compatible storage.
type bucket struct {
	client *minio.Client
	name   string
	prefix string
}

func openBucket(name, prefix string, o S3) (Store, error) {
	if o.Endpoint == "" {
		o.Endpoint = awsEndpoint
	}
	endpoint, err := url.Parse(o.Endpoint)
	if err != nil || endpoint.Host == "" || endpoint.Scheme != "http" && endpoint.Scheme != "https" {
		return nil, fmt.Errorf("open archive: %q is not the URL of an S3 endpoint", o.Endpoint)
	}
	keys := credentials.NewIAM("")
	if o.AccessKey != "" {
		keys = credentials.NewStaticV4(o.AccessKey, o.SecretKey, o.SessionToken)
	}
	secure := endpoint.Scheme == "https"
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	if o.Stall <= 0 {
		o.Stall = usualStall
	}
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return movingConn{conn, o.Stall}, err
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: keys, Secure: secure, Region: o.Region, Transport: transport, MaxRetries: tries,
	})
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	return &bucket{client, name, prefix}, nil
}

// movingConn is a connection on which reads and writes fail once no byte has moved for
// limit, in either direction. The whole duration of a request is not bounded, and a
// response may be read with pauses.
type movingConn struct {
	net.Conn
	limit time.Duration
}

// Read implements [net.Conn].
func (c movingConn) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write implements [net.Conn].
func (c movingConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (b *bucket) String() string { return s3Scheme + path.Join(b.name, b.prefix) }

func (b *bucket) key(name string) string { return path.Join(b.prefix, name) }

// Create first checks whether there is an object with that name, and asks the server
// not to replace one that was created since. Not every server can do the latter.
func (b *bucket) Create(ctx context.Context, name string, write func(io.Writer) error) error {
	_, err := b.client.StatObject(ctx, b.name, b.key(name), minio.StatObjectOptions{})
	switch {
	case err == nil:
		return fmt.Errorf("create %s: %w", name, fs.ErrExist)
	case !missing(err):
		return fmt.Errorf("look for %s: %w", name, err)
	}
	err = b.put(ctx, name, write, true)
	if minio.ToErrorResponse(err).StatusCode == http.StatusNotImplemented {
		err = b.put(ctx, name, write, false)
	}
	if minio.ToErrorResponse(err).StatusCode == http.StatusPreconditionFailed {
		return fmt.Errorf("create %s: %w", name, errors.Join(fs.ErrExist, err))
	}
	return err
}

func (b *bucket) put(ctx context.Context, name string, write func(io.Writer) error, ifNone bool) error {
	body, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(w)
		_ = w.CloseWithError(err) // an error ends the upload, which leaves no object
		written <- err
	}()
	// The body need not be signed, because the file is read back and compared, and
	// older servers do not support every way of signing.
	opts := minio.PutObjectOptions{PartSize: uploadPiece, ContentType: "application/octet-stream", DisableContentSha256: true}
	if ifNone {
		opts.SetMatchETagExcept("*")
	}
	_, err := b.client.PutObject(ctx, b.name, b.key(name), body, -1, opts)
	_ = body.CloseWithError(errors.New("the upload ended")) // so that write ends too
	if writeErr := <-written; writeErr != nil && err == nil {
		err = writeErr
	}
	if err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	return nil
}

func (b *bucket) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	object, err := b.client.GetObject(ctx, b.name, b.key(name), minio.GetObjectOptions{})
	if err == nil {
		_, err = object.Stat() // the first request is made here
	}
	switch {
	case missing(err):
		return nil, fmt.Errorf("open %s: %w", name, errors.Join(fs.ErrNotExist, err))
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return object, nil
}

func missing(err error) bool { return minio.ToErrorResponse(err).Code == minio.NoSuchKey }

func (b *bucket) List(ctx context.Context, prefix string) ([]string, error) {
	within := b.prefix
	if within != "" {
		within += "/"
	}
	var names []string
	for object := range b.client.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: within + prefix}) {
		if object.Err != nil {
			return nil, fmt.Errorf("list archive: %w", object.Err)
		}
		if name := strings.TrimPrefix(object.Key, within); !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (b *bucket) Remove(ctx context.Context, name string) error {
	// A server without this function has no unfinished uploads.
	_ = b.client.RemoveIncompleteUpload(ctx, b.name, b.key(name))
	err := b.client.RemoveObject(ctx, b.name, b.key(name), minio.RemoveObjectOptions{})
	if err != nil && !missing(err) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
