package config

import (
	"log/slog"
	"net"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/signpost/signpost/internal/archive"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/redis"
	"github.com/signpost/signpost/internal/zone"
)

// validate returns the names of further variables whose values are not allowed, besides
// the known ones. It also brings PublicURL and AppURL into their usual form.
func validate(c *Config, known []string) []string {
	day := 24 * time.Hour
	var faults []string
	check := func(name string, ok bool) {
		if !ok && !slices.Contains(known, name) {
			faults = append(faults, name)
		}
	}
	check("DATABASE_URL", c.DatabaseURL == "" || postgres.CheckURL(c.DatabaseURL) == nil)
	check("DB_MAX_CONNS", within(c.DBMaxConns, 4, 1000))
	check("REDIS_URL", c.RedisURL == "" || redis.CheckURL(c.RedisURL) == nil)
	check("REDIS_TIMEOUT", within(c.RedisTimeout, time.Millisecond, time.Second))
	check("LISTEN_ADDR", validAddr(c.ListenAddr))
	check("ADMIN_ADDR", validAddr(c.AdminAddr) && !clash(c.AdminAddr, c.ListenAddr))
	check("PUBLIC_URL", c.PublicURL == "" || tidyOwnURL(&c.PublicURL))
	check("APP_URL", c.AppURL == "" || tidyOwnURL(&c.AppURL))
	check("JOBS_URL", c.JobsURL == "" || validPage(c.JobsURL))
	check("GRAFANA_URL", c.GrafanaURL == "" || validPage(c.GrafanaURL))
	check("ADMIN_TOKEN", c.AdminToken == "" || validToken(c.AdminToken))
	check("SECURITY_CONTACT", c.SecurityContact == "" || tidyContact(&c.SecurityContact))
	check("MAX_CONNECTIONS", within(c.MaxConnections, 0, 1_000_000))
	check("MAX_CONNECTIONS_PER_CLIENT", within(c.MaxConnsPerClient, 0, 1_000_000))
	check("SPOOL_DIR", c.SpoolDir != "")
	check("SPOOL_MAX_BYTES", within(c.SpoolMaxBytes, 1<<20, 1<<50))
	check("SPOOL_KEEP", within(c.SpoolKeep, 0, 30*day))
	check("CLICK_LEDGER_KEEP", within(c.ClickLedgerKeep, 60*day, 3650*day))
	check("CLICK_DURABILITY", c.ClickDurability == "process" || c.ClickDurability == "disk")
	check("CACHE_SIZE", within(c.CacheSize, 1, 100_000_000))
	check("CACHE_STALE_MAX", within(c.CacheStaleMax, time.Second, 30*day))
	check("CACHE_TTL", within(c.CacheTTL, time.Second, day) &&
		(c.CacheTTL <= c.CacheStaleMax || slices.Contains(known, "CACHE_STALE_MAX") || slices.Contains(faults, "CACHE_STALE_MAX")))
	check("IMPORT_MAX_BYTES", within(c.ImportMaxBytes, 1<<10, 4<<30))
	check("IMPORT_MAX_UPLOADS", within(c.ImportMaxUploads, 1, 1000))
	check("EXPORT_MAX_ACTIVE", within(c.ExportMaxActive, 1, 1000))
	check("EVENTS_ARCHIVE", c.EventsArchive == "" || archive.Check(c.EventsArchive) == nil)
	check("EVENTS_RETENTION_MONTHS", within(c.EventsRetentionMonths, 0, 1200) && (c.EventsRetentionMonths == 0 || c.EventsArchive != ""))
	check("CHANGES_RETENTION_MONTHS", c.ChangesRetention == 0 ||
		c.EventsRetentionMonths > 0 && within(c.ChangesRetention, c.EventsRetentionMonths, 1200))
	check("AWS_ENDPOINT_URL", c.AWSEndpointURL == "" || validEndpoint(c.AWSEndpointURL, false))
	check("AWS_SECRET_ACCESS_KEY", (c.AWSSecretAccessKey == "") == (c.AWSAccessKeyID == ""))
	_, zoneErr := zone.Load(c.TimeZone)
	check("TIME_ZONE", zoneErr == nil)
	check("IMPORT_KEEP", c.ImportKeep == 0 || within(c.ImportKeep, time.Hour, 3650*day))
	check("OTEL_EXPORTER_OTLP_ENDPOINT", c.OTLPEndpoint == "" || validEndpoint(c.OTLPEndpoint, true))
	check("TRACE_REDIRECTS", c.TraceRedirects >= 0 && c.TraceRedirects <= 1)
	check("LOG_LEVEL", within(c.LogLevel, slog.LevelDebug, slog.LevelError) && c.LogLevel%4 == 0)
	check("LOG_FORMAT", c.LogFormat == "json" || c.LogFormat == "text")
	check("SHUTDOWN_TIMEOUT", within(c.ShutdownTimeout, time.Second, 10*time.Minute))
	return faults
}

func within[T int | Bytes | time.Duration | slog.Level](v, low, high T) bool {
	return low <= v && v <= high
}

func validAddr(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// clash reports whether two listeners would conflict: they have the same port, and the
// same address or one of them has every address.
func clash(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a) // an invalid address is an error of its own
	hostB, portB, _ := net.SplitHostPort(b)
	return portA == portB && portA != "0" && (hostA == hostB || isAny(hostA) || isAny(hostB))
}

func isAny(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// tidyOwnURL reports whether s is allowed, and removes a slash at its end.
func tidyOwnURL(s *string) bool {
	u, err := url.Parse(*s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return false
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return false
	}
	*s = u.Scheme + "://" + u.Host
	return true
}

// validPage reports whether s is the address of a page, without credentials.
func validPage(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil
}

// tidyContact reports whether s is allowed, and turns an e-mail address into a URI.
func tidyContact(s *string) bool {
	if address, err := mail.ParseAddress(*s); err == nil && address.Address == *s {
		*s = "mailto:" + *s
	}
	u, err := url.Parse(*s)
	switch {
	case err != nil || u.String() != *s: // for example one with a line end
		return false
	case u.Scheme == "https":
		return u.Hostname() != "" && u.User == nil
	}
	return (u.Scheme == "mailto" || u.Scheme == "tel") && u.Opaque != ""
}

func validEndpoint(s string, mayHavePath bool) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil &&
		u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && (mayHavePath || u.Path == "" || u.Path == "/")
}

func validToken(s string) bool {
	if len(s) < 16 || len(s) > 256 {
		return false
	}
	for _, b := range []byte(s) {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return true
}

// localURL returns the URL under which a person on this machine reaches a listen
// address.
func localURL(addr string) string {
	host, port, _ := net.SplitHostPort(addr) // was validated
	if isAny(host) {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
