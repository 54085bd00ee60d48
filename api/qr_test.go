package api

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image"
	_ "image/png"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/clicks"
)

// scan reads the code in a PNG.
func scan(t *testing.T, file []byte) string {
	t.Helper()
	img, format, err := image.Decode(bytes.NewReader(file))
	require.NoError(t, err)
	require.Equal(t, "png", format)
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	require.NoError(t, err)
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, nil)
	require.NoError(t, err)
	return result.GetText()
}

func TestQR(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, _ := b.insertLink(testLink{code: "spring", target: "https://example.com/"})
	path := fmt.Sprintf("/urls/%d/qr", id)
	a := b.want(200, RoleReader, "GET", path+".png", nil)
	assert.Equal(t, "image/png", a.header.Get("Content-Type"))
	assert.Equal(t, "private, no-cache", a.header.Get("Cache-Control"))
	assert.Equal(t, "https://sign.example/spring?qr", scan(t, a.raw))
	img, _, err := image.DecodeConfig(bytes.NewReader(a.raw))
	require.NoError(t, err)
	assert.Equal(t, 512, img.Width)

	fine := b.want(200, RoleReader, "GET", path+".png?size=300&margin=2&level=H&foreground=%23063&background=ffd", nil)
	assert.Equal(t, "https://sign.example/spring?qr", scan(t, fine.raw))
	assert.NotEqual(t, a.header.Get("ETag"), fine.header.Get("ETag"))
	plain := b.want(200, RoleReader, "GET", path+".png?mark=false", nil)
	assert.Equal(t, "https://sign.example/spring", scan(t, plain.raw))
	assert.NotEqual(t, a.header.Get("ETag"), plain.header.Get("ETag"))

	a = b.want(200, RoleReader, "GET", path+".svg?size=20&margin=0&level=L&foreground=1a2b3c", nil)
	assert.Equal(t, "image/svg+xml", a.header.Get("Content-Type"))
	assert.NoError(t, xml.Unmarshal(a.raw, new(struct{})))
	assert.Contains(t, string(a.raw), `width="20"`)
	assert.Contains(t, string(a.raw), `fill="#1a2b3c"`)
	assert.Equal(t, 1, strings.Count(string(a.raw), "<path"))
	assert.NotContains(t, string(a.raw), "style")

	// A picture that is known is not sent again, until the link has another code.
	tag := a.header.Get("ETag")
	again := b.want(304, RoleReader, "GET", path+".svg?size=20&margin=0&level=L&foreground=1a2b3c", nil, "If-None-Match", tag)
	assert.Empty(t, again.raw)
	b.want(200, RoleEditor, "PATCH", fmt.Sprintf("/urls/%d", id), object{"short_code": "autumn"})
	b.want(200, RoleReader, "GET", path+".svg?size=20&margin=0&level=L&foreground=1a2b3c", nil, "If-None-Match", tag)

	b.want(404, RoleReader, "GET", "/urls/4711/qr.png", nil)
	b.want(404, RoleReader, "GET", path+".gif", nil)
}

func TestQRRefusesWrongValues(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, _ := b.insertLink(testLink{code: strings.Repeat("long", 50), target: "https://example.com/"})
	for query, want := range map[string]map[string]string{
		"size=15":                         {"size": "must be from 16 to 2048"},
		"size=2049":                       {"size": "must be from 16 to 2048"},
		"size=big":                        {"size": "must be from 16 to 2048"},
		"margin=-1":                       {"margin": "must be from 0 to 32"},
		"margin=33&size=0":                {"margin": "must be from 0 to 32", "size": "must be from 16 to 2048"},
		"level=X":                         {"level": "must be L, M, Q or H"},
		"level=h":                         {"level": "must be L, M, Q or H"},
		"foreground=red":                  {"foreground": "must be a color such as 1a2b3c"},
		"background=12345":                {"background": "must be a color such as 1a2b3c"},
		"foreground=x&background=%00":     {"foreground": "must be a color such as 1a2b3c", "background": "must be a color such as 1a2b3c"},
		"foreground=ccc":                  {"foreground": "must be much darker than the background, or the code cannot be read"},
		"foreground=fff&background=000":   {"foreground": "must be much darker than the background, or the code cannot be read"},
		"foreground=800&background=a0000": {"background": "must be a color such as 1a2b3c"},
	} {
		for _, kind := range []string{"svg", "png"} {
			a := b.want(400, RoleReader, "GET", fmt.Sprintf("/urls/%d/qr.%s?%s", id, kind, query), nil)
			assert.Equal(t, want, a.fields(), query)
		}
	}
	a := b.want(400, RoleReader, "GET", fmt.Sprintf("/urls/%d/qr.png?size=60", id), nil)
	assert.Contains(t, a.fields()["size"], " for this link, level and margin")
	var least int
	_, err := fmt.Sscanf(a.fields()["size"], "must be at least %d", &least)
	require.NoError(t, err)
	b.want(200, RoleReader, "GET", fmt.Sprintf("/urls/%d/qr.png?size=%d", id, least), nil)
	b.want(200, RoleReader, "GET", fmt.Sprintf("/urls/%d/qr.svg?size=60", id), nil)
}

// A scan is told from a click by the query, whatever else the query has. The target gets
// what is the visitor's own, and never the mark.
func TestScanIsToldFromClick(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLink(testLink{code: "plain", target: "https://example.com/?qr"})
	b.insertLink(testLink{code: "forward", target: "https://example.com/?own=1", forward: true})
	b.insertLink(testLink{code: "bare", target: "https://example.com/#part", forward: true})
	b.insertLink(testLink{code: "like", target: "https://example.com/?qr", forward: true})
	b.insertLink(testLink{code: "qr", target: "https://example.com/code"})
	b.exec("INSERT INTO domains (id, host) OVERRIDING SYSTEM VALUE VALUES (5, 'go.example')")
	b.exec(`INSERT INTO urls (user_id, domain_id, short_code, original_url, forward_query)
		SELECT user_id, 5, 'r/forward', 'https://example.com/go', true FROM urls WHERE short_code = 'forward'`)
	b.runCache()
	b.until("the domain is known", func() bool { return b.api.Cache.Domain("go.example").ID == 5 })

	const link, qr = clicks.TriggerLink, clicks.TriggerQR
	tests := []struct {
		path, target string
		trigger      clicks.Trigger
	}{
		{"/plain?qr", "https://example.com/?qr", qr},
		{"/plain", "https://example.com/?qr", link},
		{"/r/plain?qr=", "https://example.com/?qr", qr},
		{"/plain?qr&fbclid=x", "https://example.com/?qr", qr},
		{"/plain?qr=1", "https://example.com/?qr", link},
		{"/plain?a&qr", "https://example.com/?qr", link},
		{"/plain.?qr", "https://example.com/?qr", qr},
		{"/plain%3Fqr", "https://example.com/?qr", qr},
		{"/plain&qr", "https://example.com/?qr", qr},
		{"/forward?qr", "https://example.com/?own=1", qr},
		{"/forward?qr=&utm_source=poster", "https://example.com/?own=1&utm_source=poster", qr},
		{"/forward&qr&a=1?b=2", "https://example.com/?own=1&a=1&b=2", qr},
		{"/forward?qr=7", "https://example.com/?own=1&qr=7", link},
		{"/forward?a=1&qr", "https://example.com/?own=1&a=1&qr", link},
		{"/bare?qr", "https://example.com/#part", qr},
		{"/bare?qr&a", "https://example.com/?a#part", qr},
		{"/like?qr", "https://example.com/?qr", qr},
		{"/like", "https://example.com/?qr", link},
		{"/qr", "https://example.com/code", link},
		{"/qr?qr", "https://example.com/code", qr},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.target, b.raw("GET", tt.path).header.Get("Location"), tt.path)
	}
	assert.Equal(t, "https://example.com/go?a=1", b.rawOn("go.example", "GET", "/r/forward?qr&a=1").header.Get("Location"))
	assert.Equal(t, "https://example.com/?own=1", b.raw("HEAD", "/forward?qr").header.Get("Location"))
	got := b.clicks()
	require.Len(t, got, len(tests)+1)
	for i, tt := range tests {
		assert.Equal(t, tt.trigger, got[i].Trigger, tt.path)
	}
	assert.Equal(t, qr, got[len(tests)].Trigger)
}

// The address in the picture of each link leads to its target, and counts as a scan.
func TestScannedAddressLeadsToTheTarget(t *testing.T) {
	t.Parallel()
	b := setup(t)
	codes := []string{"a", "Case-1_", "team/walks", "café", "☕", "end!", "b.c", "users", "qr"}
	b.exec("INSERT INTO domains (id, host) OVERRIDING SYSTEM VALUE VALUES (5, 'go.example')")
	owner := b.user("ann")
	var ids []int64
	for i, code := range codes {
		target := fmt.Sprintf("https://example.com/%d?qr=%d", i, i)
		id, _ := b.insertLink(testLink{code: code, target: target, forward: true})
		ids = append(ids, id)
		a := b.do(RoleEditor, "POST", "/urls", object{"user_id": owner, "domain": "go.example", "short_code": "r/" + strings.TrimRight(code, "!"), "original_url": target})
		require.Equal(t, http.StatusCreated, a.status, "%s", a.raw)
		ids = append(ids, a.id())
	}
	b.runCache()
	b.until("the domain is known", func() bool { return b.api.Cache.Domain("go.example").ID == 5 })
	for i, id := range ids {
		text := scan(t, b.want(200, RoleReader, "GET", fmt.Sprintf("/urls/%d/qr.png?level=L", id), nil).raw)
		u, err := url.Parse(text)
		require.NoError(t, err)
		a := b.rawOn(u.Host, "GET", u.RequestURI())
		assert.Equal(t, fmt.Sprintf("https://example.com/%d?qr=%d", i/2, i/2), a.header.Get("Location"), text)
	}
	got := b.clicks()
	require.Len(t, got, len(ids))
	for i, id := range ids {
		assert.Equal(t, id, got[i].URLID)
		assert.Equal(t, clicks.TriggerQR, got[i].Trigger)
	}
}
