package links

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestCutScan(t *testing.T) {
	t.Parallel()
	for query, rest := range map[string]string{
		"qr": "", "qr=": "", "qr&": "", "qr&a=1": "a=1", "qr=&a=1&b": "a=1&b", "qr&qr": "qr", "qr&qr=7": "qr=7", "qr&&a": "&a",
		"qr=&=": "=",
	} {
		got, scanned := CutScan(query)
		assert.True(t, scanned, query)
		assert.Equal(t, rest, got, query)
	}
	for _, query := range []string{"", "q", "qr=1", "qr==", "qrs", "qr=qr", "a=1&qr", "QR", "q%72", "xqr", "&qr", "qr;", "qr#"} {
		got, scanned := CutScan(query)
		assert.False(t, scanned, query)
		assert.Equal(t, query, got)
	}
}

// The query of a scanned address is its mark, whatever the code, and what is appended
// to it is what remains.
func TestScanURLIsRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		code := NormalCode(rapid.StringMatching(`[a-zäß0-9._~+@!$-]{1,20}(/[a-z0-9]{1,5})?`).Draw(t, "code"))
		appended := rapid.StringMatching(`([a-z]{0,3}(=[a-z&=]{0,5})?)?`).Draw(t, "appended")
		short := "https://sign.example" + CodePath(code)
		text := ScanURL(short)
		if appended != "" {
			text += "&" + appended
		}
		u, err := url.Parse(text)
		require.NoError(t, err)
		rest, scanned := CutScan(u.RawQuery)
		assert.True(t, scanned)
		assert.Equal(t, appended, rest)
		assert.Equal(t, short, u.Scheme+"://"+u.Host+u.EscapedPath())
	})
}
