package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/internal/shipping"
)

// Operators guards the parts of an admin listener that are for operators only:
// profiles, the jobs page, reshipping. It may be used concurrently. Make it with
// NewOperators.
type Operators struct {
	tokens  *Tokens
	proxies proxies
	host    string // of the listener's configured address, if that names one
	origin  *http.CrossOriginProtection
	log     *slog.Logger
}

// NewOperators returns a guard for the listener on addr (host:port). It admits bearers
// of a token with the role admin. It takes the address of a client from the
// X-Forwarded-For of trusted proxies.
func NewOperators(tokens *Tokens, addr string, trusted []netip.Prefix, log *slog.Logger) *Operators {
	host, _ := hostOf(addr)
	return &Operators{tokens: tokens, proxies: trusted, host: host, origin: http.NewCrossOriginProtection(), log: log}
}

// Only returns a handler that calls next for admins only. They send their token as
// Authorization: Bearer, or as the password of HTTP Basic with any name, which browsers
// can ask for.
//
// A browser also adds that password to requests that other pages make, and a page can
// reach this listener under a host name of its own (DNS rebinding). So writes are
// accepted only from the listener's own pages, and only under host names that a
// stranger's name server cannot resolve, see named.
func (o *Operators) Only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Frame-Options", "DENY") // a click must be meant for this page
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		actor, err := o.admit(r)
		if err != nil {
			refuse(w, o.log, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, actor)))
	})
}

func (o *Operators) admit(r *http.Request) (Actor, error) {
	if !o.named(r.Host) {
		return Actor{}, service.Forbidden("this listener does not answer to that name: use its IP address, or give the name in ADMIN_ADDR")
	}
	if o.origin.Check(r) != nil {
		return Actor{}, service.Forbidden("the request came from another site")
	}
	secret, ok := bearer([]byte(r.Header.Get("Authorization")))
	if !ok {
		_, secret, ok = r.BasicAuth()
	}
	if !ok || secret == "" {
		return Actor{}, unauthorized("this needs an admin token: send it as Authorization: Bearer <token>, or as the password with any name")
	}
	actor, err := o.tokens.verify(r.Context(), secret, o.from(r))
	if err != nil {
		return Actor{}, err
	}
	return actor, actor.Require(RoleAdmin)
}

// named reports whether a Host header names the listener by an IP address, by a name
// without a dot (localhost, a container, a machine of this network) or by the name in
// its configuration. A stranger may control any other name.
func (o *Operators) named(header string) bool {
	host, isIP := hostOf(header)
	return isIP || !strings.Contains(host, ".") || host == o.host
}

// hostOf returns the host of host:port, in lower case and without a final dot, and
// whether it is an IP address. The port may be missing.
func hostOf(address string) (host string, isIP bool) {
	host = address
	if h, _, err := net.SplitHostPort(address); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host, err == nil
}

// from is addressOf for a request of net/http.
func (o *Operators) from(r *http.Request) netip.Addr {
	hop, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	var lines [][]byte
	for _, line := range r.Header.Values("X-Forwarded-For") {
		lines = append(lines, []byte(line))
	}
	return o.proxies.origin(plain(hop.Addr()), lines)
}

// refuse answers a request on the admin listener with an error in JSON, which also has
// the field that River UI shows.
func refuse(w http.ResponseWriter, log *slog.Logger, err error) {
	e := answerable(log, "", err)
	h := w.Header()
	for name, values := range e.GetHeaders() {
		h[name] = values
	}
	if e.Status == http.StatusUnauthorized { // so that a browser asks for the password
		h.Set("WWW-Authenticate", `Basic realm="signpost", charset="UTF-8"`)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(struct { // a client that went away is no concern
		*Error
		Shown string `json:"message"`
	}{e, e.Message})
}

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

// NewReshipHandler answers POST with {"segments": n, "waiting": n}, see
// [shipping.Shipper.Reship]. It does not check who asks, so it is served through
// Operators.Only.
func NewReshipHandler(s *shipping.Shipper, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		put, waiting, err := s.Reship(ctx)
		if err != nil {
			refuse(w, log, reshipError(err, put))
			return
		}
		log.InfoContext(ctx, "reshipping was asked for", slog.String("by", actorIn(ctx).Name), slog.Int("segments", put), slog.Int("waiting", waiting))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]int{"segments": put, "waiting": waiting}) // a client that went away is no concern
	})
}

func reshipError(err error, put int) error {
	var busy *shipping.BusyError
	if errors.As(err, &busy) {
		return tooMany(busy.Reason, busy.RetryAfter)
	}
	if errors.Is(err, shipping.ErrStopped) {
		return unavailable(err.Error() + ", ask again shortly")
	}
	return &Error{Status: http.StatusInternalServerError, Message: fmt.Sprintf("%d segments were put back; others could not be moved: the log says why", put)}
}
