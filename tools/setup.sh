#!/bin/sh
# Installs what running and testing need and Go does not bring: a PostgreSQL
# server (15 or later) and, with "setup.sh test", a C compiler for the race
# detector, Redis, Caddy and leave to mount in namespaces. Does nothing where they are there
# already.
#
# "setup.sh e2e" brings a browser and axe-core for the tests of the dashboard.
#
# "setup.sh monitoring" unpacks Prometheus, Alertmanager and HAProxy into
# bin/monitoring for the check of what we ship for them. They are not installed:
# their packages would start services.
set -eu

need_go() {
	command -v go >/dev/null 2>&1 && return
	echo "Go is missing: install Go 1.26 or later (https://go.dev/doc/install) and put it on PATH." >&2
	exit 1
}

# The newest server's major version, or nothing.
postgres_version() {
	for dir in $(printf '%s' "$PATH" | tr ':' ' ') /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
		/usr/local/opt/postgresql*/bin /opt/homebrew/opt/postgresql*/bin; do
		[ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] &&
			"$dir/postgres" --version | sed -nE 's/.* ([0-9]+)(\.|beta|rc|devel).*/\1/p'
	done | sort -n | tail -n 1
}

if [ "${1:-}" = monitoring ]; then
	into=bin/monitoring
	for tool in prometheus promtool amtool haproxy; do
		command -v $tool >/dev/null 2>&1 || [ -x $into/usr/bin/$tool ] || [ -x $into/usr/sbin/$tool ] || missing=yes
	done
	[ -n "${missing:-}" ] || exit 0
	if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
		echo "Please put prometheus, promtool, amtool and haproxy on PATH, then run this again." >&2
		exit 1
	fi
	echo "Unpacking Prometheus and HAProxy into $into ..." >&2
	rm -rf $into && mkdir -p $into && cd $into
	# With the libraries of HAProxy that little else needs.
	download() {
		# shellcheck disable=SC2046 # a list of packages
		apt-get download -qq prometheus prometheus-alertmanager haproxy \
			$(apt-cache depends --recurse --important haproxy | grep -E '^lib(lua|opentracing)[^:]*$')
	}
	if ! download 2>/dev/null; then
		if [ "$(id -u)" = 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
		download
	fi
	for package in *.deb; do dpkg-deb -x "$package" . && rm "$package"; done
	rm -rf usr/share # its examples hold Go, which would count as ours
	exit 0
fi

missing=
version=$(postgres_version)
[ "${version:-0}" -ge 15 ] || missing="postgresql"
if [ "${1:-}" = test ] && ! command -v "${CC:-gcc}" >/dev/null 2>&1 && ! command -v cc >/dev/null 2>&1; then
	missing="$missing gcc libc6-dev"
fi
if [ "${1:-}" = test ] && ! command -v redis-server >/dev/null 2>&1; then
	missing="$missing redis-server"
fi
if [ "${1:-}" = test ] && ! command -v caddy >/dev/null 2>&1; then
	missing="$missing caddy"
fi
if [ "${1:-}" = e2e ] && [ ! -f bin/axe/package/axe.min.js ]; then
	axe=4.14.1
	command -v npm >/dev/null 2>&1 || { echo "Please put npm on PATH: it fetches axe-core, which looks at pages as those do who cannot see them." >&2; exit 1; }
	mkdir -p bin/axe
	(cd bin/axe && npm pack --silent axe-core@$axe >/dev/null && tar -xzf axe-core-$axe.tgz package/axe.min.js package/LICENSE)
fi
if [ "${1:-}" = e2e ] && ! command -v chromium >/dev/null 2>&1 && ! command -v google-chrome >/dev/null 2>&1; then
	missing="$missing chromium"
fi
need_go

as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
# Tests mount small file systems in namespaces of their own. Root may; others
# only where the system allows it, which recent Ubuntu does not by itself.
restricted=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
if [ "${1:-}" = test ] && [ -n "$as_root" ] && [ "$(cat $restricted 2>/dev/null)" = 1 ]; then
	sudo -n sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=0 ||
		echo "Tests of the spool need root or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" >&2
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1 || { [ -n "$as_root" ] && ! command -v sudo >/dev/null 2>&1; }; then
	echo "Please install a PostgreSQL server, 15 or later, with its contrib modules (and a C compiler, redis-server and caddy for 'make test'), then run this again." >&2
	exit 1
fi
echo "Installing $missing ..." >&2
# Signpost starts a private server of its own: the package must not start one.
$as_root mkdir -p /etc/postgresql-common
grep -qsE '^[[:space:]]*create_main_cluster' /etc/postgresql-common/createcluster.conf ||
	echo 'create_main_cluster = false' | $as_root tee -a /etc/postgresql-common/createcluster.conf >/dev/null
# Nor those of Redis and Caddy, which are for tests alone.
policy=/usr/sbin/policy-rc.d
case "$missing" in *redis* | *caddy*)
	if [ ! -e $policy ]; then
		trap '$as_root rm -f $policy' EXIT
		printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
		$as_root chmod +x $policy
	fi
	;;
esac
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	-o Dpkg::Options::=--force-confold $missing >/dev/null
if command -v systemctl >/dev/null 2>&1; then
	for service in redis-server caddy; do
		case "$missing" in *"$service"*) $as_root systemctl disable --quiet "$service" 2>/dev/null || true ;; esac
	done
fi
version=$(postgres_version)
if [ "${version:-0}" -lt 15 ]; then
	echo "This distribution's PostgreSQL is older than 15: install version 15 or later and run this again." >&2
	exit 1
fi
