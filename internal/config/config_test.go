package config

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
)

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := Load(nil)
	require.NoError(t, err)
	want := Config{
		DBMaxConns: 10, RedisTimeout: 10 * time.Millisecond, ListenAddr: ":8080", AdminAddr: "127.0.0.1:9090", PublicURL: "http://localhost:8080",
		SpoolDir: "/var/lib/signpost/spool", SpoolMaxBytes: 1 << 30, SpoolKeep: time.Hour, ClickDurability: "process",
		TimeZone: "UTC", ClickLedgerKeep: 90 * 24 * time.Hour, ImportKeep: 90 * 24 * time.Hour,
		CacheSize: 100000, CacheTTL: 5 * time.Minute, CacheStaleMax: 24 * time.Hour,
		ImportMaxBytes: 2 << 30, ImportMaxUploads: 8, ExportMaxActive: 4, TraceRedirects: 0.01, LogFormat: "json", ShutdownTimeout: 25 * time.Second,
	}
	if got := c.String(); got != want.String() {
		t.Errorf("defaults:\n%s\nwant:\n%s", got, want)
	}
}

func TestLoadReadsEveryVariable(t *testing.T) {
	t.Parallel()
	c, err := Load([]string{
		"UNKNOWN=1", "LISTEN_ADDR=:1", "LISTEN_ADDR=127.0.0.1:8000", "ADMIN_ADDR=", "PUBLIC_URL=https://sho.rt/",
		"DATABASE_URL=postgres://u:p@db/signpost", "ADMIN_TOKEN=0123456789abcdef", "SPOOL_MAX_BYTES=4GiB",
		"TRUSTED_PROXIES=10.1.2.3/8, 192.0.2.7,::1", "LOG_LEVEL=debug", "CACHE_TTL=1m",
		"PUBLIC_HOSTS=go.example , ünï.example:8443,,2001:db8::1",
	})
	require.NoError(t, err)
	if c.ListenAddr != "127.0.0.1:8000" || c.AdminAddr != "127.0.0.1:9090" || c.PublicURL != "https://sho.rt" ||
		c.DatabaseURL != "postgres://u:p@db/signpost" || c.AdminToken != "0123456789abcdef" ||
		c.SpoolMaxBytes != 4<<30 || c.LogLevel != slog.LevelDebug || c.CacheTTL != time.Minute {
		t.Errorf("got %s", c)
	}
	want := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("::1/128"),
	}
	if !slices.Equal(c.TrustedProxies, want) {
		t.Errorf("trusted proxies = %v, want %v", c.TrustedProxies, want)
	}
	if want := "PUBLIC_HOSTS=go.example,ünï.example:8443,2001:db8::1\n"; !strings.Contains(c.String(), want) {
		t.Errorf("%s is not in %s", want, c)
	}
	for _, own := range []string{"https://sho.rt/x", "https://GO.example./x", "http://xn--n-nga1b.example:8443/x", "http://[2001:db8:0::1]/x"} {
		if _, err := links.CleanTarget(own, c.OwnHosts()); !errors.Is(err, links.ErrTargetOwn) {
			t.Errorf("%s: %v, want it to be known as own", own, err)
		}
	}
	for _, other := range []string{"https://ünï.example/x", "https://www.sho.rt/x"} {
		if _, err := links.CleanTarget(other, c.OwnHosts()); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
}

func TestPublicURLFollowsListenAddr(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		":8081":            "http://localhost:8081",
		"0.0.0.0:80":       "http://localhost:80",
		"[::]:80":          "http://localhost:80",
		"go.example:8080":  "http://go.example:8080",
		"[2001:db8::1]:80": "http://[2001:db8::1]:80",
	} {
		c, err := Load([]string{"LISTEN_ADDR=" + addr})
		if err != nil || c.PublicURL != want {
			t.Errorf("LISTEN_ADDR=%s: public URL %q, %v; want %q", addr, c.PublicURL, err, want)
		}
	}
}

func TestWrongValues(t *testing.T) {
	t.Parallel()
	for name, values := range map[string][]string{
		"DATABASE_URL":                {"mysql://db/x", "postgres://u:p@db:port/x", "nonsense"},
		"DB_MAX_CONNS":                {"3", "1001", "many"},
		"REDIS_URL":                   {"http://cache", "redis://cache/first", "redis://cache:port", "cache:6379", "redis://cache#1", "redis://:1#ss@cache"},
		"REDIS_TIMEOUT":               {"0s", "2s", "5"},
		"LISTEN_ADDR":                 {"8080", ":65536", ":http", "host"},
		"ADMIN_ADDR":                  {"9090", ":8080"},
		"JOBS_URL":                    {"jobs.example", "ftp://jobs.example", "https://u:p@jobs.example"},
		"GRAFANA_URL":                 {"grafana", "https://"},
		"APP_URL":                     {"app.sho.rt", "https://app.sho.rt/app", "https://u@app.sho.rt"},
		"PUBLIC_URL":                  {"sho.rt", "ftp://sho.rt", "https://sho.rt/go", "https://sho.rt?x", "https://u@sho.rt", "https://", "https://:80", "http://a#b"},
		"PUBLIC_HOSTS":                {"https://go.example", "go.example/x", "*.go.example", "go.example:0", "a b", "go.example;old.example"},
		"ADMIN_TOKEN":                 {"short", "has a space in its middle", strings.Repeat("x", 257), "0123456789abcdé."},
		"TRUSTED_PROXIES":             {"10.0.0.0/33", "proxy.local", "10.0.0.1;10.0.0.2"},
		"SPOOL_MAX_BYTES":             {"1.5GiB", "-1", "1000", "9999999999TiB", "GiB"},
		"SPOOL_KEEP":                  {"1", "-1s", "721h"},
		"CLICK_LEDGER_KEEP":           {"0s", "1439h", "90"},
		"CLICK_DURABILITY":            {"fsync", "Disk", "memory"},
		"CACHE_SIZE":                  {"0", "100000001"},
		"CACHE_TTL":                   {"0s", "25h", "soon"},
		"CACHE_STALE_MAX":             {"0s", "721h"},
		"IMPORT_MAX_BYTES":            {"1", "2 potatoes", "5GiB"},
		"IMPORT_MAX_UPLOADS":          {"0", "1001", "some"},
		"EXPORT_MAX_ACTIVE":           {"0", "1001", "some"},
		"LOG_LEVEL":                   {"loud", "info+1", "error+4"},
		"LOG_FORMAT":                  {"xml"},
		"SHUTDOWN_TIMEOUT":            {"0s", "11m"},
		"EVENTS_RETENTION_MONTHS":     {"-1", "12", "1201", "a year"},
		"CHANGES_RETENTION_MONTHS":    {"-1", "12", "1201"},
		"EVENTS_ARCHIVE":              {"s3://", "s3://UPPER/x", "gs://bucket/x"},
		"AWS_ENDPOINT_URL":            {"minio:9000", "https://minio/path", "https://u:p@minio"},
		"AWS_SECRET_ACCESS_KEY":       {"alone"},
		"TIME_ZONE":                   {"Berlin", "Local", "+02:00", "../etc/passwd"},
		"IMPORT_KEEP":                 {"1m", "-1h", "3651d"},
		"TRACE_REDIRECTS":             {"-0.1", "1.1", "NaN", "some"},
		"OTEL_EXPORTER_OTLP_ENDPOINT": {"collector:4318", "grpc://collector:4317", "http://", "http://u:p@collector", "http://collector?x"},
	} {
		for _, value := range values {
			_, err := Load([]string{name + "=" + value})
			var fault ValueError
			if !errors.As(err, &fault) || fault.Variable != name || fault.Allowed == "" {
				t.Errorf("%s=%s: %v; want a fault of that variable", name, value, err)
			}
			if strings.Count(fmt.Sprint(err), "it must be") != 1 {
				t.Errorf("%s=%s: %v; want one fault", name, value, err)
			}
		}
	}
}

// TestBareValues reads settings in the form that an env file or a mounted secret gives
// them.
func TestBareValues(t *testing.T) {
	t.Parallel()
	const database, token = "postgres://u:p@db/signpost?sslmode=disable", "0123456789abcdef"
	for _, form := range []string{"%s", " %s", "%s\n", "\t%s\r\n", `"%s"`, `'%s'`, " \"%s\" \n", "' %s'"} {
		bare := func(value string) string { return strings.ReplaceAll(form, "%s", value) }
		c, err := Load([]string{
			"DATABASE_URL=" + bare(database), "ADMIN_TOKEN=" + bare(token), "CACHE_SIZE=" + bare("7"), "LISTEN_ADDR=" + bare(":81"),
			"LOG_LEVEL=" + bare("warn"), "SPOOL_MAX_BYTES=" + bare("2MiB"), "SPOOL_DIR=" + bare("/a b"), "EVENTS_ARCHIVE=" + bare(""),
		})
		if err != nil {
			t.Errorf("%q: %v", form, err)
			continue
		}
		if c.DatabaseURL != database || c.AdminToken != token || c.CacheSize != 7 || c.ListenAddr != ":81" ||
			c.LogLevel != slog.LevelWarn || c.SpoolMaxBytes != 2<<20 || c.SpoolDir != "/a b" || c.EventsArchive != "" {
			t.Errorf("%q: got %s", form, c)
		}
	}
	for value, want := range map[string]string{
		`"`: `"`, `"a'`: `"a'`, `""a""`: `"a"`, `'"a"'`: `"a"`, `password='a b' host=c`: `password='a b' host=c`, ` "" `: "",
	} {
		if got := Bare(value); got != want {
			t.Errorf("%q is taken for %q, want %q", value, got, want)
		}
	}
}

// TestDatabaseURLIsRefusedWithItsReason uses mistakes that people make, with a secret
// that no message may repeat.
func TestDatabaseURLIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://app:s3c#ret@db/x":               "write %23",
		"postgres://app:12#ret@db/x":                "write %23",
		"postgres://app@db/x?password=s3c#ret":      "write %23",
		"postgres://app:s3c/ret@db/x":               "%2F",
		"postgres://app:12/ret@db/x":                "%2F",
		"postgres://app:s3c?ret@db/x":               "%3F",
		"postgres://app:12?ret@db/x":                "%3F",
		"postgres://app:s3c%ret@db/x":               "write %25",
		"postgres://app:s3c ret@db/x":               "percent-encoded",
		"postgres://app:s3c[ret@db/x":               "percent-encoded",
		"postgres://app:ret@db:five/x":              "a port is a number",
		"mysql://app:ret@db/x":                      "does not start with postgres://",
		"Postgres://app:ret@db/x":                   "does not start with postgres://",
		"//app:ret@db/x?sslmode=disable":            "neither a postgres:// URL nor a keyword/value string",
		"postgresql:app:ret@db/x?sslmode=disable":   "neither a postgres:// URL nor a keyword/value string",
		"app:ret@db/x":                              "neither a postgres:// URL nor a keyword/value string",
		"host=db pass word=ret":                     "",
		"postgres://app:ret@db/x?sslmode=sometimes": "sslmode",
		"postgres://app:ret@db/x?a%20b=1":           "neither",
	} {
		_, err := Load([]string{"DATABASE_URL=" + url})
		var fault ValueError
		if !errors.As(err, &fault) || fault.Reason == "" || !strings.Contains(fault.Reason, want) {
			t.Errorf("%s: %v; want a reason with %q", url, err, want)
		}
		if strings.Contains(fmt.Sprint(err), "ret") {
			t.Errorf("%s: the message repeats a part of the password: %v", url, err)
		}
	}
	for _, url := range []string{
		"postgres://app:p%23s%2Fs@db/x", "postgres://app:p@ss@db:5433/x", "postgresql://db", "postgres://a@db1:5432,db2:5433/x?target_session_attrs=read-write",
		"postgres:///x?host=/run/postgresql&user=me@corp.example", "host=db user=app password='p#s s/?@' dbname=x", "dbname = x",
		"host=/run/postgresql application_name=a://b",
	} {
		assert.NoErrorf(t, postgres.CheckURL(url), "%s", url)
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"*":                   "*",
		"https://app.example": "https://app.example",
		" https://App.Example/ , ,http://localhost:3000": "https://app.example,http://localhost:3000",
		"https://app.example:443,http://a.example:80":    "https://app.example,http://a.example",
		"https://münchen.example":                        "https://xn--mnchen-3ya.example",
		"http://[::1]:3000":                              "http://[::1]:3000",
		"capacitor://localhost":                          "capacitor://localhost",
		"app.example":                                    "",
		"https://":                                       "",
		"https://app.example/path":                       "",
		"https://app.example?x":                          "",
		"https://user@app.example":                       "",
		"https://*.example":                              "",
		"null":                                           "",
		"*,https://app.example":                          "",
		"https://app.example,*":                          "",
		"https://a.example https://b.example":            "",
	} {
		c, err := Load([]string{"CORS_ORIGINS=" + text})
		if got := c.CORSOrigins.String(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "origins such as https://app.example") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSecurityContact(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"security@example.com":           "mailto:security@example.com",
		"mailto:security@example.com":    "mailto:security@example.com",
		"https://example.com/security":   "https://example.com/security",
		"tel:+1-201-555-0123":            "tel:+1-201-555-0123",
		"http://example.com/security":    "",
		"example.com":                    "",
		"Sec <security@example.com>":     "",
		"mailto:":                        "",
		"https:///x":                     "",
		"javascript:alert(1)":            "",
		"https://a.example/\nExpires: 1": "",
		"https://a.example/ b":           "",
	} {
		c, err := Load([]string{"SECURITY_CONTACT=" + text})
		if c.SecurityContact != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", text, c.SecurityContact, err, want)
		}
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Load([]string{"LOG_FORMAT=xml", "CACHE_TTL=soon", "ADMIN_TOKEN=hunter2", "DATABASE_URL=postgres://u:s3cret@db:x/", "CACHE_SIZE=0"})
	text := fmt.Sprint(err)
	for _, want := range []string{
		`LOG_FORMAT is "xml": it must be json or text`, `CACHE_TTL is "soon"`, "ADMIN_TOKEN is", "DATABASE_URL is", `CACHE_SIZE is "0"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("error lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "hunter2") || strings.Contains(text, "s3cret") {
		t.Errorf("error holds a secret:\n%s", text)
	}
}

func TestRedisURLHidesItsPassword(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"redis://:s3cret@cache:6379/1":    "redis://:xxxxx@cache:6379/1",
		"rediss://me:s3cret@cache":        "rediss://me:xxxxx@cache",
		"unix://:s3cret@/run/redis.sock":  "unix://:xxxxx@/run/redis.sock",
		"unix:///run/redis.sock?db=2":     "unix:///run/redis.sock?db=2",
		"redis://:s3cret@cache/nonsense":  "REDIS_URL is",
		"unix:s3cret@/run/redis.sock?a=b": "",
	} {
		c, err := Load([]string{"REDIS_URL=" + url})
		text := c.String() + fmt.Sprint(err)
		if !strings.Contains(text, want) || strings.Contains(text, "s3cret") {
			t.Errorf("%s is shown as %s", url, text)
		}
	}
}

func TestCrossChecks(t *testing.T) {
	t.Parallel()
	if _, err := Load([]string{"CACHE_TTL=1h", "CACHE_STALE_MAX=30m"}); err == nil {
		t.Error("CACHE_TTL above CACHE_STALE_MAX was accepted")
	}
	for _, archive := range []string{"/var/lib/archive", "s3://bucket/some/where", "none"} {
		if _, err := Load([]string{"EVENTS_RETENTION_MONTHS=12", "EVENTS_ARCHIVE=" + archive}); err != nil {
			t.Errorf("EVENTS_ARCHIVE=%s: %v", archive, err)
		}
	}
	for months, ok := range map[string]bool{"0": true, "11": false, "12": true, "36": true} {
		environ := []string{"EVENTS_RETENTION_MONTHS=12", "EVENTS_ARCHIVE=none", "CHANGES_RETENTION_MONTHS=" + months}
		if _, err := Load(environ); (err == nil) != ok {
			t.Errorf("changes for %s months and clicks for 12: %v", months, err)
		}
	}
	if _, err := Load([]string{"LISTEN_ADDR=:0", "ADMIN_ADDR=:0"}); err != nil {
		t.Errorf("any free port twice: %v", err)
	}
	for listen, admin := range map[string]string{":9090": "", "127.0.0.1:9090": "", "0.0.0.0:80": "127.0.0.1:80", "[::1]:80": "[::]:80"} {
		if _, err := Load([]string{"LISTEN_ADDR=" + listen, "ADMIN_ADDR=" + admin}); err == nil {
			t.Errorf("both listeners may be on one port: %s and %s", listen, admin)
		}
	}
	if _, err := Load([]string{"LISTEN_ADDR=127.0.0.1:80", "ADMIN_ADDR=127.0.0.2:80"}); err != nil {
		t.Errorf("one port of two addresses: %v", err)
	}
}

func TestSecretsStayHidden(t *testing.T) {
	t.Parallel()
	for _, database := range []string{
		"postgres://user:s3cret@db.example/signpost?sslmode=disable",
		"postgres://user@db.example/signpost?password=s3cret&sslpassword=s3cret",
		"postgres://user:p@db.example/signpost?application_name=x@s3cret",
		"host=db.example password=s3cret",
		"password='s3cret' host=db.example",
	} {
		c, err := Load([]string{"DATABASE_URL=" + database, "ADMIN_TOKEN=s3cret-s3cret-s3cret"})
		require.NoErrorf(t, err, "%s", database)
		var logged bytes.Buffer
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("configuration", "config", c)
		for _, text := range []string{c.String(), logged.String(), fmt.Sprintf("%v %+v %#v %s", c, c, c, c)} {
			if strings.Contains(text, "s3cret") {
				t.Errorf("%s shows a secret: %s", database, text)
			}
			if !strings.Contains(text, "DATABASE_URL") {
				t.Errorf("text lacks DATABASE_URL: %s", text)
			}
		}
	}
	c, err := Load([]string{"DATABASE_URL=postgres://user:s3cret@db.example/signpost"})
	if err != nil || !strings.Contains(c.String(), "DATABASE_URL=postgres://user:xxxxx@db.example/signpost\n") {
		t.Errorf("the harmless parts of the URL are to be seen: %v\n%s", err, c)
	}
}

func TestBytesRoundTrip(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Bytes{
		"0": 0, "1000": 1000, "1KiB": 1 << 10, "1KB": 1000, "512mib": 512 << 20, "3 GiB": 3 << 30, "2Ti": 2 << 40, "7B": 7,
	} {
		var b, again Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q: %d, %v; want %d", text, b, err, want)
		}
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q printed as %q, which reads as %d, %v", text, b, again, err)
		}
	}
}

func FuzzBytes(f *testing.F) {
	f.Add("4GiB")
	f.Add("-1")
	f.Fuzz(func(t *testing.T, text string) {
		var b, again Bytes
		if b.UnmarshalText([]byte(text)) != nil {
			return
		}
		if b < 0 {
			t.Fatalf("%q reads as %d", text, b)
		}
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Fatalf("%q reads as %d, prints as %q, reads as %d, %v", text, b, b, again, err)
		}
	})
}

func TestMarkdownNamesEveryVariable(t *testing.T) {
	t.Parallel()
	page := Markdown()
	for _, v := range variables() {
		if v.doc == "" || v.allowed == "" || v.env == "" {
			t.Errorf("%s lacks a tag", v.env)
		}
		if !strings.Contains(page, "| `"+v.env+"` |") {
			t.Errorf("page lacks %s", v.env)
		}
	}
	if strings.Contains(page, "${") {
		t.Error("page holds a placeholder")
	}
}
