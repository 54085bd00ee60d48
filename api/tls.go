package api

import (
	"net/http"

	"github.com/signpost/signpost/internal/links"
)

// AskTLS answers GET /tls/ask?domain= on the admin listener. The answer is 200 if short
// links are served on the host, so that a proxy may fetch a certificate for it, and 404
// otherwise. It comes from memory, so that TLS handshakes for other hosts cost nothing.
// Proxies ask without a token.
func (a *API) AskTLS(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	host, err := links.CleanHost(r.URL.Query().Get("domain"), links.Hosts{})
	if err != nil || !a.OwnHosts.Has(host) {
		http.Error(w, "no short links answer on this host", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusOK)
}
