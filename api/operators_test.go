package api

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// guarded answers a request to a listener that is only for operators with the name of
// the operator.
func (b *bundle) guarded(addr string, proxies []netip.Prefix) func(method, host string, header ...string) answer {
	b.t.Helper()
	only := NewOperators(b.api.Tokens, addr, proxies, slog.New(slog.DiscardHandler)).Only(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, actorIn(r.Context()).Name)
		}))
	return func(method, host string, header ...string) answer {
		b.t.Helper()
		r := httptest.NewRequestWithContext(b.t.Context(), method, "/debug/pprof/", nil)
		r.Host, r.RemoteAddr = host, "192.0.2.1:1234"
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		only.ServeHTTP(w, r)
		a, _ := answerOf(w.Result())
		if a.status >= 400 {
			delete(a.body, "message")
			checkShape(b.t, method+" "+host, a)
		}
		return a
	}
}

func TestOperatorsAreAdmins(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ask := b.guarded("127.0.0.1:9090", nil)
	for secret, want := range map[string]int{
		testAdminToken: 200, b.tokens[RoleAdmin]: 200, b.tokens[RoleEditor]: 403, b.tokens[RoleReader]: 403,
		newSecret(): 401, "guess": 401, "": 401,
	} {
		basic := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		basic.SetBasicAuth("anyone", secret)
		for _, header := range []string{"Bearer " + secret, basic.Header.Get("Authorization")} {
			a := ask("GET", "localhost:9090", "Authorization", header)
			if a.status != want {
				t.Errorf("%s is answered with %d %s, want %d", header, a.status, a.raw, want)
			}
			if want == 200 && len(a.raw) == 0 {
				t.Error("the handler does not know who asks")
			}
			if want == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("a browser would not ask for the password: %v", a.header)
			}
		}
	}
	if a := ask("GET", "localhost:9090"); a.status != 401 {
		t.Errorf("without a token: %d", a.status)
	}
	b.exec("UPDATE api_tokens SET revoked_at = now()")
	b.api.Tokens.limiter = newLimiter()
	if a := ask("GET", "localhost:9090", "Authorization", "Bearer "+b.tokens[RoleAdmin]); a.status != 401 {
		t.Errorf("a revoked token: %d", a.status)
	}
}

// TestOperatorsUnderStrangeNames sends requests as a browser does if the name of a
// stranger led it to the listener (DNS rebinding). Under that name even the right token
// is refused.
func TestOperatorsUnderStrangeNames(t *testing.T) {
	t.Parallel()
	b := setup(t)
	token := []string{"Authorization", "Bearer " + testAdminToken}
	ask := b.guarded("ops.internal.example:9090", nil)
	for host, want := range map[string]int{
		"localhost:9090": 200, "localhost": 200, "LocalHost.:9090": 200, "127.0.0.1:9090": 200, "172.31.0.7:9090": 200,
		"[::1]:9090": 200, "[2001:db8::1]": 200, "signpost-api-1:9090": 200, "": 200,
		"ops.internal.example:9090": 200, "OPS.internal.example": 200, "ops.internal.example.:9091": 200,
		"evil.example": 403, "evil.example:9090": 403, "127.0.0.1.nip.io:9090": 403, "localhost.evil.example": 403,
		"x.ops.internal.example:9090": 403,
	} {
		for _, method := range []string{"GET", "POST"} {
			// A browser sends the page's own origin with writes.
			if a := ask(method, host, append(token, "Origin", "http://"+host, "Sec-Fetch-Site", "same-origin")...); a.status != want {
				t.Errorf("%s as %q: %d %s, want %d", method, host, a.status, a.raw, want)
			}
		}
	}
	for _, header := range [][]string{
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
	} {
		if a := ask("POST", "localhost:9090", append(token, header...)...); a.status != 403 {
			t.Errorf("a write with %v: %d", header, a.status)
		}
	}
}

func TestGuessesAtTheAdminListenerCount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ask := b.guarded(":9090", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
	from := func(client string) answer {
		return ask("GET", "localhost", "Authorization", "Bearer guess", "X-Forwarded-For", client)
	}
	for range failuresAtOnce {
		from("203.0.113.9")
	}
	if a := from("203.0.113.9"); a.status != 429 {
		t.Errorf("a guess too many: %d", a.status)
	}
	if a := from("203.0.113.10"); a.status != 401 {
		t.Errorf("the first guess of another: %d", a.status)
	}
}
