// Package config is the configuration of every role: environment variables,
// read once, checked together, printed without secrets. Only main reads it.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
)

// Config is the whole configuration. The tags of its fields are the reference, from
// which the page in docs/ is made: doc gives the meaning, allowed the values that are
// allowed. Load returns only a valid Config. Its text forms hide secrets; the fields
// DatabaseURL and AdminToken themselves do not.
type Config struct {
	DatabaseURL string `env:"DATABASE_URL" secret:"url" doc:"The PostgreSQL database, version 15 or later. Required by every role but ${dev}, which brings its own server when this is empty." allowed:"a postgres:// URL, with special characters in the password percent-encoded, or a keyword/value string"`
	DBMaxConns  int    `env:"DB_MAX_CONNS" envDefault:"10" doc:"Most connections to PostgreSQL in the pools of one process. Of those of an api half, at most 16, are kept for redirects (look-ups, shipping of clicks, ${ready}); the rest is for the management API, where lists and exports leave two to other requests. A process holds one more besides: an api to learn of changed links, a worker of new jobs. ${dev} is an api and a worker in one and holds as many as both." allowed:"a number from 4 to 1000"`

	RedisURL     string        `env:"REDIS_URL" secret:"url" doc:"Redis (or Valkey) that all replicas share as a second cache of links. Empty means that there is none. It needs no persistence; whoever can write to it can redirect links." allowed:"redis://user:password@host:port/database, with special characters percent-encoded, the same with rediss://, or unix:///path"`
	RedisTimeout time.Duration `env:"REDIS_TIMEOUT" envDefault:"10ms" doc:"How long a redirect that is not cached waits for Redis before it asks PostgreSQL. After a few failures Redis is not asked at all until it answers again." allowed:"a duration from 1ms to 1s, such as 10ms"`

	ListenAddr string `env:"LISTEN_ADDR" envDefault:":8080" doc:"Where redirects and the management API listen. ${dev} has localhost:8080, which only this machine reaches." allowed:"host:port or :port, with a port from 0 to 65535"`
	AdminAddr  string `env:"ADMIN_ADDR" envDefault:"127.0.0.1:9090" doc:"Where metrics, health, profiles and the jobs page listen: only for this machine unless another address is given, such as :9090 where Prometheus runs elsewhere. Keep it off the Internet: health and metrics ask for no token." allowed:"host:port or :port, with a port from 0 to 65535, other than that of LISTEN_ADDR"`
	PublicURL  string `env:"PUBLIC_URL" doc:"What every short URL starts with. Empty means this machine's LISTEN_ADDR." allowed:"an absolute http:// or https:// URL without path, query or credentials"`
	// PublicHosts are further hosts, besides the host of PublicURL.
	PublicHosts Hosts  `env:"PUBLIC_HOSTS" doc:"Further hosts under which the service is reached, such as an older domain. No link may lead to a short link on one of them, nor on that of PUBLIC_URL, since it would redirect in circles." allowed:"host names or addresses, each alone or as host:port, separated by commas"`
	AppURL      string `env:"APP_URL" doc:"Where the dashboard is reached, if it is to be on one host alone, such as another one than short links have. Empty means the hosts of PUBLIC_URL and PUBLIC_HOSTS if PUBLIC_URL is https://, and otherwise every host that is no custom domain." allowed:"an absolute http:// or https:// URL without path, query or credentials"`
	// JobsURL and GrafanaURL are only shown.
	JobsURL    string `env:"JOBS_URL" doc:"Where operators reach the jobs page (River UI, ${jobs} on ADMIN_ADDR), for the link to it on the dashboard's System page. ${dev} knows it." allowed:"an absolute http:// or https:// URL"`
	GrafanaURL string `env:"GRAFANA_URL" doc:"Where operators reach Grafana, for the link to it on the dashboard's System page." allowed:"an absolute http:// or https:// URL"`
	AdminToken string `env:"ADMIN_TOKEN" secret:"all" doc:"Accepted as a token with the role admin, for the first start and for automation. Empty means that there is none." allowed:"16 to 256 printable ASCII characters without spaces"`
	// TrustedProxies holds networks; a single address is a network of one host.
	TrustedProxies Networks `env:"TRUSTED_PROXIES" doc:"Addresses and networks of the proxies in front, whose X-Forwarded-For is believed." allowed:"IP addresses and networks such as 10.0.0.0/8, separated by commas"`

	CORSOrigins     Origins `env:"CORS_ORIGINS" doc:"Origins of web pages whose scripts may use the management API, with a token. Empty means none; * means any page that has a token." allowed:"origins such as https://app.example or http://localhost:3000, without a path, separated by commas, or * alone"`
	SecurityContact string  `env:"SECURITY_CONTACT" doc:"Where people report a weakness of this service, published in ${security}. Empty means that there is no such file." allowed:"an e-mail address, or a URI that begins with mailto:, https:// or tel:"`

	MaxConnections    int `env:"MAX_CONNECTIONS" envDefault:"0" doc:"Most connections of clients that an api has open at once. Shortly before, those that have waited longest for their client, to send or to read, are closed to make room. 0 means 8192, or as many as the limit on open files leaves beside files of its own and connections to the database." allowed:"a number from 0 to 1000000"`
	MaxConnsPerClient int `env:"MAX_CONNECTIONS_PER_CLIENT" envDefault:"0" doc:"Most of them that one client has, by its IPv4 address or the /64 of its IPv6 one; TRUSTED_PROXIES are not bounded so. 0 means a quarter of all." allowed:"a number from 0 to 1000000"`

	SpoolDir        string        `env:"SPOOL_DIR" envDefault:"/var/lib/signpost/spool" doc:"Where clicks are kept until they are in the database. A local file system that survives the process." allowed:"a folder"`
	SpoolMaxBytes   Bytes         `env:"SPOOL_MAX_BYTES" envDefault:"1GiB" doc:"Most bytes that one process keeps in SPOOL_DIR. Beyond, clicks are dropped and counted." allowed:"a size from 1MiB to 1PiB, such as 512MiB, 4GiB or a number of bytes"`
	SpoolKeep       time.Duration `env:"SPOOL_KEEP" envDefault:"1h" doc:"How long clicks stay in the spool after they reached the database, so that a failover to a replica that lagged can be repaired." allowed:"a duration from 0s to 720h, such as 90m"`
	ClickLedgerKeep time.Duration `env:"CLICK_LEDGER_KEEP" envDefault:"2160h" doc:"How long the database remembers a batch of clicks of which nobody said that it is gone from its spool, as of a volume that vanished." allowed:"a duration from 1440h, twice the most that SPOOL_KEEP may be, to 87600h"`
	ClickDurability string        `env:"CLICK_DURABILITY" envDefault:"process" doc:"What an answered redirect's click survives: the end of the process (process), or also a power cut (disk)." allowed:"process or disk; in the place of memory, which earlier releases had, set SPOOL_DIR to a folder on a tmpfs"`

	CacheSize     int           `env:"CACHE_SIZE" envDefault:"100000" doc:"Most links that one process remembers; fewer where their targets have more than 2 KiB in the mean." allowed:"a number from 1 to 100000000"`
	CacheTTL      time.Duration `env:"CACHE_TTL" envDefault:"5m" doc:"After how long a remembered link is looked up again although nothing said that it changed." allowed:"a duration from 1s to 24h and at most CACHE_STALE_MAX, such as 5m"`
	CacheStaleMax time.Duration `env:"CACHE_STALE_MAX" envDefault:"24h" doc:"How long remembered links are served while PostgreSQL cannot be reached." allowed:"a duration from 1s to 720h, such as 24h"`

	ImportMaxBytes   Bytes `env:"IMPORT_MAX_BYTES" envDefault:"2GiB" doc:"Largest file that may be imported, unpacked." allowed:"a size from 1KiB to 4GiB, such as 512MiB or a number of bytes"`
	ImportMaxUploads int   `env:"IMPORT_MAX_UPLOADS" envDefault:"8" doc:"Most files that one process receives at once. One more is answered with 503." allowed:"a number from 1 to 1000"`
	ExportMaxActive  int   `env:"EXPORT_MAX_ACTIVE" envDefault:"4" doc:"Most exports that one process streams at once. One more is answered with 503." allowed:"a number from 1 to 1000"`

	EventsRetentionMonths int    `env:"EVENTS_RETENTION_MONTHS" envDefault:"0" doc:"How many months before the current one keep their events in the database; older months go to EVENTS_ARCHIVE. 0 keeps all. Totals do not change." allowed:"a number from 0 to 1200, with EVENTS_ARCHIVE set if it is not 0"`
	ChangesRetention      int    `env:"CHANGES_RETENTION_MONTHS" envDefault:"0" doc:"How many months before the current one keep their change events (created, updated, deleted), which say who changed what. Older ones go where clicks go. 0 keeps all, also when clicks go." allowed:"a number from 0 to 1200; if it is not 0, with EVENTS_RETENTION_MONTHS set and not below that"`
	EventsArchive         string `env:"EVENTS_ARCHIVE" doc:"Where months of events go that are older than EVENTS_RETENTION_MONTHS. With none they go nowhere: they are deleted." allowed:"a folder, s3://bucket/prefix or none"`
	AWSEndpointURL        string `env:"AWS_ENDPOINT_URL" doc:"Where S3-compatible storage is, for an EVENTS_ARCHIVE in it. Empty means AWS." allowed:"an http:// or https:// URL without path"`
	AWSRegion             string `env:"AWS_REGION" doc:"The region of the bucket in EVENTS_ARCHIVE. Empty asks the server." allowed:"a name such as eu-central-1"`
	AWSAccessKeyID        string `env:"AWS_ACCESS_KEY_ID" doc:"Key for the bucket in EVENTS_ARCHIVE. Empty means the role of the machine or container." allowed:"a key, together with AWS_SECRET_ACCESS_KEY"`
	AWSSecretAccessKey    string `env:"AWS_SECRET_ACCESS_KEY" secret:"all" doc:"Secret of AWS_ACCESS_KEY_ID." allowed:"a secret, together with AWS_ACCESS_KEY_ID"`
	AWSSessionToken       string `env:"AWS_SESSION_TOKEN" secret:"all" doc:"Session of a temporary AWS_ACCESS_KEY_ID." allowed:"a token"`

	TimeZone string `env:"TIME_ZONE" envDefault:"UTC" doc:"The time zone of statistics, unless a request names another, and the one whose day counts a visitor once. The same for every process." allowed:"the name of a time zone, such as UTC or Europe/Berlin"`

	ImportKeep time.Duration `env:"IMPORT_KEEP" envDefault:"2160h" doc:"How long a finished import and its rejected rows can be looked at. After that it can no longer be undone. What it brought stays. 0s means for ever." allowed:"0s or a duration from 1h to 87600h"`
	// OTLPEndpoint switches traces on. The SDK itself reads the other OTEL_ variables.
	OTLPEndpoint   string  `env:"OTEL_EXPORTER_OTLP_ENDPOINT" doc:"The OpenTelemetry collector that gets traces over HTTP. Empty means that there are none. The other standard variables, such as OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and OTEL_SERVICE_NAME, hold as well." allowed:"an absolute http:// or https:// URL, such as http://collector:4318"`
	TraceRedirects float64 `env:"TRACE_REDIRECTS" envDefault:"0.01" doc:"Share of redirects that are traced, where traces are on." allowed:"a number from 0 to 1"`

	LogLevel        slog.Level    `env:"LOG_LEVEL" envDefault:"info" doc:"Least important messages that are logged." allowed:"debug, info, warn or error"`
	LogFormat       string        `env:"LOG_FORMAT" envDefault:"json" doc:"Form of the log, which goes to standard error." allowed:"json or text"`
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"25s" doc:"How long a process that was asked to stop may finish what it is doing." allowed:"a duration from 1s to 10m, such as 25s"`
}

// OwnHosts returns the hosts on which this service has short links.
func (c Config) OwnHosts() links.Hosts {
	all := slices.Clone(c.PublicHosts)
	for _, own := range []string{c.PublicURL, c.AppURL} {
		if u, err := url.Parse(own); err == nil && u.Host != "" {
			all = append(all, u.Host)
		}
	}
	// A name that cannot be the host of any target is left out.
	hosts, _ := links.ParseHosts(all...)
	return hosts
}

// ValueError is the error that a variable has a value that is not allowed.
type ValueError struct {
	Variable string
	Value    string // hidden if the variable is a secret
	Reason   string // why the value is not allowed, if more is known than that
	Allowed  string
}

func (e ValueError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("%s is %q: %s; it must be %s", e.Variable, e.Value, e.Reason, e.Allowed)
	}
	return fmt.Sprintf("%s is %q: it must be %s", e.Variable, e.Value, e.Allowed)
}

// Load reads the configuration from variables in the form of os.Environ. Each value
// passes through Bare first. An empty variable counts as not given, and if one is given
// twice, the last counts. The error joins a ValueError for every variable that is
// wrong, not just for the first.
func Load(environ []string) (Config, error) {
	values := given(environ)
	var c Config
	faults := parse(&c, values)
	faults = append(faults, validate(&c, faults)...)
	if len(faults) == 0 {
		if c.PublicURL == "" {
			c.PublicURL = localURL(c.ListenAddr)
		}
		return c, nil
	}
	var list []error
	for _, name := range variables() { // in the order of the reference
		if slices.Contains(faults, name.env) {
			fault := ValueError{Variable: name.env, Value: name.show(values[name.env]), Allowed: name.allowed}
			if err := postgres.CheckURL(c.DatabaseURL); name.env == "DATABASE_URL" && err != nil {
				fault.Reason = err.Error()
			}
			list = append(list, fault)
		}
	}
	return Config{}, fmt.Errorf("configuration: %w", errors.Join(list...))
}

func given(environ []string) map[string]string {
	values := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if value = Bare(value); value != "" {
			values[name] = value
		}
	}
	return values
}

// Bare returns a setting without characters around it that come from its file: blanks
// and line ends (a mounted secret), and one pair of quotes (an env file).
func Bare(value string) string {
	value = strings.TrimSpace(value)
	if n := len(value); n >= 2 && value[0] == value[n-1] && (value[0] == '"' || value[0] == '\'') {
		value = strings.TrimSpace(value[1 : n-1])
	}
	return value
}

// parse fills c and returns the names of the variables whose text cannot be read at
// all, such as a number with letters.
func parse(c *Config, values map[string]string) []string {
	err := env.ParseWithOptions(c, env.Options{Environment: values})
	var all env.AggregateError
	if !errors.As(err, &all) {
		return nil
	}
	var faults []string
	for _, err := range all.Errors {
		var fault env.ParseError
		if errors.As(err, &fault) {
			faults = append(faults, variableOf(fault.Name))
		}
	}
	return faults
}

// variable holds the tags of one field.
type variable struct {
	env, byDefault, doc, allowed, secret string
	field                                int
}

// code replaces names in tags by marked-up code. A tag is in back quotes itself, and so
// cannot hold any.
var code = strings.NewReplacer("${dev}", "`signpost dev`", "${ready}", "`/ready`", "${jobs}", "`/jobs/`", "${security}", "`/.well-known/security.txt`")

func variables() []variable {
	t := reflect.TypeFor[Config]()
	var list []variable
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		list = append(list, variable{
			env:       tag.Get("env"),
			byDefault: tag.Get("envDefault"),
			doc:       code.Replace(tag.Get("doc")),
			allowed:   tag.Get("allowed"),
			secret:    tag.Get("secret"),
			field:     i,
		})
	}
	return list
}

func variableOf(field string) string {
	f, ok := reflect.TypeFor[Config]().FieldByName(field)
	if !ok {
		return field
	}
	return f.Tag.Get("env")
}
