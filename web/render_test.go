package web

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An error page offers to try again only what a link can do: a form is not sent again by
// following one.
func TestErrorPagesOfferToTryAgain(t *testing.T) {
	t.Parallel()
	w := New(Options{})
	for _, c := range []struct {
		isForm bool
		status int
		want   bool
	}{{false, 503, true}, {false, 429, true}, {false, 404, false}, {true, 503, false}, {true, 429, false}} {
		page, err := w.Error(&Request{Path: "/app"}, c.isForm, c.status, "it went wrong")
		require.NoError(t, err)
		assert.Equal(t, c.status, page.Status)
		assert.Contains(t, string(page.Body), "<p data-message>It went wrong.</p>")
		if c.want {
			assert.Contains(t, string(page.Body), `href="">Try again`)
		} else {
			assert.NotContains(t, string(page.Body), "Try again")
		}
	}
}

// The page of a form that is to be sent again has all of its fields, and shows those that
// somebody filled in.
func TestErrorPageSendsAFormAgain(t *testing.T) {
	t.Parallel()
	r := &Request{Path: "/app/links/1/edit", Form: Values{url.Values{
		"key": {"K"}, "title": {"new"}, "shown_title": {"old"}, "domain": {"same.example"}, "shown_domain": {"same.example"}, "tags": {""}, "id": {"3", "4"},
	}}}
	page, err := New(Options{}).Error(r, true, 503, "the database cannot be reached")
	require.NoError(t, err)
	body := string(page.Body)
	assert.Contains(t, body, `<form method="post" action="/app/links/1/edit">`)
	assert.Equal(t, 8, strings.Count(body, `<input type="hidden"`))
	assert.Contains(t, body, `<input type="hidden" name="key" value="K">`)
	assert.Contains(t, body, `<dl class="sent"><dt>title</dt><dd><pre>new</pre></dd></dl>`, "nobody typed the others")
}
