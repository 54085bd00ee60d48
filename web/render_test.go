package web

import (
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
