package api

import (
	"bytes"
	"encoding/binary"
	"image"
	_ "image/png" // the format of the icons
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
)

// forbids reports whether robots.txt keeps crawlers off a path. It reads rules as
// Google and RFC 9309 do: a rule is the beginning of a path, and $ stands for its end.
func forbids(t *testing.T, robots, path string) bool {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(robots), "\n")
	if lines[0] != "User-agent: *" {
		t.Fatalf("robots.txt begins with %q", lines[0])
	}
	return slices.ContainsFunc(lines[1:], func(line string) bool {
		rule, ok := strings.CutPrefix(line, "Disallow: /")
		if !ok || rule == "" {
			t.Fatalf("robots.txt says %q", line)
		}
		if whole, ends := strings.CutSuffix("/"+rule, "$"); ends {
			return path == whole
		}
		return strings.HasPrefix(path, "/"+rule)
	})
}

func TestRobots(t *testing.T) {
	t.Parallel()
	b := setup(t)
	robots := string(b.want(200, 0, "GET", "/robots.txt", nil).raw)
	for _, s := range b.served() {
		path := s.path(1)
		free := s.pattern == "/" || s.pattern == routeShort || s.pattern == "/apple-touch-icon:size.png" || slices.Contains(forCrawlers, first(path))
		for _, path := range []string{path, path + "?a=b"} {
			if forbids(t, robots, path) == free {
				t.Errorf("%s is forbidden: %v\n%s", path, !free, robots)
			}
		}
	}
	for _, path := range []string{
		"/usersguide", "/users.html", "/docs-2026", "/r", "/r/users", "/spring?a=b", "/spring", "/r/docs", "/urlsx", "/healthy", "/admins", "/jobs",
		"/apple-touch-icon.png", "/.well-known/security.txt",
	} {
		if forbids(t, robots, path) {
			t.Errorf("%s is forbidden:\n%s", path, robots)
		}
	}
	for _, path := range []string{"/users", "/users/1", "/users?limit=1", "/docs/swagger-ui.css", "/openapi.json", "/app", "/api/v1", "/admin", "/stats?x"} {
		if !forbids(t, robots, path) {
			t.Errorf("%s is free:\n%s", path, robots)
		}
	}
}

func TestIcons(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for path, kind := range map[string]string{
		"/favicon.ico": "image/x-icon", "/apple-touch-icon.png": "image/png", "/apple-touch-icon-precomposed.png": "image/png",
		"/apple-touch-icon-120x120.png": "image/png", "/apple-touch-icon-180x180-precomposed.png": "image/png",
	} {
		a := b.want(200, 0, "GET", path, nil)
		tag, cache := a.header.Get("ETag"), a.header.Get("Cache-Control")
		if a.header.Get("Content-Type") != kind || tag == "" || !strings.Contains(cache, "max-age=") || len(a.raw) > 10<<10 {
			t.Errorf("%s: %d bytes with %v", path, len(a.raw), a.header)
		}
		b.want(304, 0, "GET", path, nil, "If-None-Match", tag)
		b.want(200, 0, "GET", path, nil, "If-Modified-Since", "Fri, 27 Nov 2099 12:00:00 GMT")
		if head := b.want(200, 0, "HEAD", path, nil); head.header.Get("ETag") != tag || len(head.raw) > 0 {
			t.Errorf("HEAD %s: %d bytes with %v", path, len(head.raw), head.header)
		}
		b.want(405, RoleAdmin, "POST", path, nil)
		for _, size := range pictures(t, a.raw) {
			if size != 16 && size != 32 && size != 48 && size != 180 {
				t.Errorf("%s has a picture of %d", path, size)
			}
		}
		code := strings.TrimPrefix(path, "/")
		if !links.Reserved(code) {
			t.Errorf("a link may have the code %s, and is never reached", code)
		}
	}
	for _, page := range []string{"/", "/docs", "/nothing"} {
		a := b.do(0, "GET", page, nil, "Accept", htmlAccept)
		if policy := a.header.Get("Content-Security-Policy"); !strings.Contains(policy, "img-src 'self'") {
			t.Errorf("%s keeps a browser from the icon: %q", page, policy)
		}
	}
	for _, path := range []string{"/apple-touch-icon", "/apple-touch-icon/a.png", "/apple-touch-icon.jpg", "/favicon.png"} {
		b.want(404, 0, "GET", path, nil)
	}
}

// pictures returns the sizes of the pictures in a PNG, or in an ICO that consists of
// PNGs.
func pictures(t *testing.T, file []byte) (sizes []int) {
	t.Helper()
	entries := [][]byte{file}
	if bytes.HasPrefix(file, []byte{0, 0, 1, 0}) {
		entries = nil
		for i := range int(binary.LittleEndian.Uint16(file[4:])) {
			entry := file[6+16*i:]
			length, offset := binary.LittleEndian.Uint32(entry[8:]), binary.LittleEndian.Uint32(entry[12:])
			entries = append(entries, file[offset:offset+length])
		}
	}
	for _, entry := range entries {
		picture, _, err := image.Decode(bytes.NewReader(entry))
		require.NoError(t, err)
		if size := picture.Bounds().Size(); size.X != size.Y {
			t.Errorf("a picture is %v", size)
		}
		sizes = append(sizes, picture.Bounds().Dx())
	}
	return sizes
}

func TestSecurityContact(t *testing.T) {
	t.Parallel()
	const path = "/.well-known/security.txt"
	pool := setup(t).pool
	b := setupOn(t, pool, func(o *Options) { o.SecurityContact = "mailto:security@example.com" })
	a := b.want(200, 0, "GET", path, nil)
	said := regexp.MustCompile(`^Contact: mailto:security@example\.com\nExpires: (.+)\n$`).FindSubmatch(a.raw)
	if said == nil || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Fatalf("%v %s", a.header, a.raw)
	}
	expires, err := time.Parse(time.RFC3339, string(said[1]))
	if now := time.Now(); err != nil || expires.Before(now.AddDate(0, 1, 0)) || expires.After(now.AddDate(1, 0, 0)) {
		t.Errorf("it expires %s: %v", said[1], err)
	}
	if head := b.want(200, 0, "HEAD", path, nil); len(head.raw) > 0 {
		t.Errorf("HEAD has %d bytes", len(head.raw))
	}
	b.want(405, RoleAdmin, "POST", path, nil)
	for _, other := range []string{"/.well-known", "/.well-known/", "/.well-known/change-password", "/.well-known/security.txt/"} {
		b.want(404, 0, "GET", other, nil)
	}
	none := setupOn(t, pool)
	none.want(404, 0, "GET", path, nil)
	none.want(404, 0, "HEAD", path, nil)
}

// first returns the first segment of a path.
func first(path string) string {
	segment, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return segment
}
