package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/service"
)

func TestCredentials(t *testing.T) {
	t.Parallel()
	b := setup(t)
	reader := b.tokens[RoleReader]
	expired, revoked := newSecret(), newSecret()
	for secret, column := range map[string]string{expired: "expires_at", revoked: "revoked_at"} {
		hash := sha256.Sum256([]byte(secret))
		if _, err := b.pool.Exec(t.Context(),
			"INSERT INTO api_tokens (name, role, hash, "+column+") VALUES ('old', 'admin', $1, now() - interval '1 s')", hash[:]); err != nil {
			t.Fatal(err)
		}
	}
	for header, status := range map[string]int{
		"Bearer " + reader:                    200,
		"bearer   " + reader + "  ":           200,
		"Bearer " + testAdminToken:            200,
		"":                                    401,
		"Bearer":                              401,
		"Bearer ":                             401,
		"Basic " + reader:                     401,
		reader:                                401,
		"Bearer " + reader + " x":             401,
		"Bearer " + reader[1:]:                401,
		"Bearer " + strings.ToUpper(reader):   401,
		"Bearer " + testAdminToken + "x":      401,
		"Bearer " + expired:                   401,
		"Bearer " + revoked:                   401,
		"Bearer " + newSecret():               401,
		"Bearer \xff\xfe":                     401,
		"Bearer " + strings.Repeat("a", 9000): 401,
	} {
		b.api.Tokens.limiter = newLimiter()
		b.want(status, 0, "GET", "/users", nil, "Authorization", header)
	}
	// A request with two headers is refused, although one would be enough.
	answers := b.rawAll("GET /users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nAuthorization: Bearer "+reader+"\r\n\r\n", 1)
	if len(answers) != 1 || answers[0].status != 401 {
		t.Errorf("two headers were answered with %v", answers)
	}
}

func TestNoAdminTokenIsNoToken(t *testing.T) {
	t.Parallel()
	b := setupOn(t, setup(t).pool, func(o *Options) { o.Tokens = NewTokens(o.Pool, "") })
	for _, header := range []string{"Bearer", "Bearer ", "Bearer  "} {
		b.want(401, 0, "GET", "/users", nil, "Authorization", header)
	}
}

func TestExpiryAndRevocationHoldAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, end := range []string{"revoked_at = now()", "expires_at = now()"} {
		token, secret := createToken(t, b.pool, "short", RoleReader)
		header := []string{"Authorization", "Bearer " + secret}
		b.want(200, 0, "GET", "/users", nil, header...)
		b.exec("UPDATE api_tokens SET "+end+" WHERE id = $1", token.ID)
		b.want(401, 0, "GET", "/users", nil, header...)
	}
}

func TestGuessesAreSlowedDown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	guess := []string{"Authorization", "Bearer guess"}
	b.want(200, RoleReader, "GET", "/users", nil) // a token that is known from now on
	for range failuresAtOnce {
		b.want(401, 0, "GET", "/users", nil, guess...)
	}
	a := b.want(429, 0, "GET", "/users", nil, guess...)
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 || seconds > int(failureInterval.Seconds()) {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
	// Even the right token is answered like the wrong ones.
	b.want(429, RoleAdmin, "GET", "/users", nil)
	b.want(429, 0, "GET", "/users", nil, "Authorization", "Bearer "+testAdminToken)
	b.want(429, 0, "POST", "/imports?kind=urls", "x", guess...)
	// A token that was valid from this address before still works, and open routes stay
	// open.
	b.want(200, RoleReader, "GET", "/users", nil)
	b.want(200, 0, "GET", "/health", nil)
	b.want(401, 0, "GET", "/users", nil)
}

// Guesses that are sent at once are bounded like guesses one after the other.
func TestParallelGuesses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := time.Now()
	statuses := b.together(100, func(int) string { return newSecret() })
	grown := int(time.Since(began)/failureInterval) + 1
	if n := statuses[401]; n < failuresAtOnce || n > failuresAtOnce+grown || n+statuses[429] != 100 {
		t.Errorf("100 guesses at once were answered %v, want %d times 401 and then 429", statuses, failuresAtOnce)
	}
}

// Valid tokens do not hold each other up, although this process has seen none of them
// yet and all come from one address.
func TestParallelTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const clients = 50
	secrets := make([]string, clients)
	for i := range secrets {
		secrets[i], _ = b.newToken(RoleReader, "")
	}
	if statuses := b.together(clients, func(i int) string { return secrets[i] }); statuses[200] != clients {
		t.Errorf("%d valid tokens at once were answered %v", clients, statuses)
	}
	// None of them has used up any allowance.
	for range failuresAtOnce {
		b.want(401, 0, "GET", "/users", nil, "Authorization", "Bearer guess")
	}
}

// From its second use on, a token that has ended counts as a wrong guess.
func TestEndedTokensCount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	secret, finish := b.newToken(RoleReader, "revoked")
	header := []string{"Authorization", "Bearer " + secret}
	b.want(200, 0, "GET", "/users", nil, header...)
	finish()
	for range 1 + failuresAtOnce {
		b.want(401, 0, "GET", "/users", nil, header...)
	}
	b.want(429, 0, "GET", "/users", nil, header...)
}

// together sends so many requests at once, each with its token, and counts the answers
// by status. They ask for one user, because only few lists are served at once.
func (b *bundle) together(n int, secret func(i int) string) map[int]int {
	b.t.Helper()
	var (
		all      sync.WaitGroup
		mu       sync.Mutex
		statuses = map[int]int{}
	)
	path := fmt.Sprintf("/users/%d", b.user("ann"))
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			a, err := b.try(0, "GET", path, nil, "Authorization", "Bearer "+secret(i))
			mu.Lock()
			defer mu.Unlock()
			assert.NoError(b.t, err)
			statuses[a.status]++
		})
	}
	close(start)
	all.Wait()
	return statuses
}

func TestAllowance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAllowance()
		try := func(failed bool) time.Duration {
			t.Helper()
			wait, err := a.begin(t.Context())
			require.NoError(t, err)
			if wait == 0 {
				a.end(failed)
			}
			return wait
		}
		for range failuresAtOnce {
			if try(false) != 0 || try(true) != 0 {
				t.Fatal("a try has to wait")
			}
		}
		if wait := try(true); wait <= 0 || wait > failureInterval {
			t.Errorf("after all have failed a try has to wait %v", wait)
		}
		<-time.After(failureInterval) // time of the bubble
		if wait, err := a.begin(t.Context()); wait != 0 || err != nil {
			t.Errorf("after %v a try has to wait %v, %v", failureInterval, wait, err)
		}
		// Another try waits for its turn, and is refused if the first one has failed.
		waited := make(chan time.Duration)
		go func() {
			wait, _ := a.begin(t.Context())
			waited <- wait
		}()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.begin(ctx); err == nil {
			t.Error("a try waits longer than its context")
		}
		synctest.Wait()
		a.end(true)
		if wait := <-waited; wait <= 0 {
			t.Error("two tries were made of an allowance for one")
		}
	})
}

// Each client behind a proxy has an allowance of its own, and cannot get another one by
// inventing an address.
func TestGuessesBehindAProxy(t *testing.T) {
	t.Parallel()
	b := setupOn(t, setup(t).pool, func(o *Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	from := func(status int, forwarded string) {
		t.Helper()
		b.want(status, 0, "GET", "/users", nil, "Authorization", "Bearer guess", "X-Forwarded-For", forwarded)
	}
	for i := range failuresAtOnce {
		from(401, fmt.Sprintf("198.51.100.%d, 203.0.113.1", i))
		from(401, fmt.Sprintf("2001:db8::%d", i))
	}
	from(429, "203.0.113.1")
	from(429, "192.0.2.1, 203.0.113.1")
	from(429, "2001:db8::ffff")
	from(401, "203.0.113.2")
	from(401, "2001:db8:0:1::1")
}

func TestNetworkOf(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
	} {
		if got := networkOf(netip.MustParseAddr(address)); got.String() != want {
			t.Errorf("%s is of %s, want %s", address, got, want)
		}
	}
	if got := networkOf(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("no address is of %s", got)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.want(201, RoleAdmin, "POST", "/tokens", object{"name": "deploy script", "role": "editor", "expires_at": "2090-01-01T02:00:00+02:00"})
	secret, _ := a.body["token"].(string)
	if !service.IsSecret(secret) || a.body["name"] != "deploy script" || a.body["role"] != "editor" ||
		a.body["expires_at"] != "2090-01-01T00:00:00Z" || a.body["revoked_at"] != nil || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("created %s", a.raw)
	}
	var hash []byte
	require.NoError(t, b.pool.QueryRow(t.Context(), "SELECT hash FROM api_tokens WHERE id = $1", a.id()).Scan(&hash))
	if want := sha256.Sum256([]byte(secret)); string(hash) != string(want[:]) {
		t.Errorf("stored %x", hash)
	}
	header := []string{"Authorization", "Bearer " + secret}
	b.want(200, 0, "GET", "/urls", nil, header...)
	b.want(403, 0, "GET", "/tokens", nil, header...)
	list := b.want(200, RoleAdmin, "GET", "/tokens", nil)
	if len(list.rows()) != 4 || strings.Contains(string(list.raw), "sp_") || strings.Contains(string(list.raw), "hash") {
		t.Errorf("the list is %s", list.raw)
	}
	for range 2 {
		b.want(204, RoleAdmin, "DELETE", fmt.Sprintf("/tokens/%d", a.id()), nil)
		b.want(401, 0, "GET", "/urls", nil, header...)
	}
	b.want(404, RoleAdmin, "DELETE", "/tokens/12345", nil)
	if rows := b.want(200, RoleAdmin, "GET", "/tokens", nil).rows(); rows[3]["revoked_at"] == nil {
		t.Errorf("after its revocation the token is %v", rows[3])
	}
}

func TestTokenFields(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, test := range []struct {
		body object
		want []string
	}{
		{object{}, []string{"name", "role"}},
		{object{"name": 1, "role": 1, "expires_at": 1}, []string{"name", "role", "expires_at"}},
		{object{"name": "", "role": "root", "expires_at": "2020-01-01T00:00:00Z"}, []string{"name", "role", "expires_at"}},
		{object{"name": "a\nb", "role": "Admin"}, []string{"name", "role"}},
		{object{"name": strings.Repeat("a", 101), "role": nil}, []string{"name", "role"}},
	} {
		a := b.want(400, RoleAdmin, "POST", "/tokens", test.body)
		got := a.fields()
		for _, field := range test.want {
			if got[field] == "" {
				t.Errorf("%v: nothing is said about %s: %s", test.body, field, a.raw)
			}
		}
		if len(got) != len(test.want) {
			t.Errorf("%v: fields %v", test.body, got)
		}
	}
}

// The event of a change names the token that made it, by id and name.
func TestChangesNameTheirToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	b.newLink(ann, "https://example.com", nil)
	b.want(200, 0, "PATCH", fmt.Sprintf("/users/%d", ann), object{"username": "anna"}, "Authorization", "Bearer "+testAdminToken)
	var by []string
	for _, row := range b.want(200, RoleReader, "GET", "/events", nil).rows() {
		by = append(by, fmt.Sprint(row["details"].(map[string]any)["by"]))
	}
	want := "[map[name:ADMIN_TOKEN token_id:<nil>] map[name:editor of the test token_id:2] map[name:admin of the test token_id:3]]"
	if got := fmt.Sprint(by); got != want {
		t.Errorf("changes were made by %s, want %s", got, want)
	}
}
