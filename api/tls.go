package api

import (
	"net/http"

	"github.com/signpost/signpost/internal/links"
)

// AskTLS answers GET /tls/ask?domain= on the admin listener: 200 if a proxy in front
// may fetch a certificate for the host, which is one on which short links answer, and
// 404 otherwise. It answers from memory, so that handshakes for hosts of strangers
// cost nothing. Proxies ask without a token.
func (a *API) AskTLS(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	host, err := links.CleanHost(r.URL.Query().Get("domain"), links.Hosts{})
	if err != nil || !a.OwnHosts.Has(host) {
		http.Error(w, "no short links answer on this host", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusOK)
}
