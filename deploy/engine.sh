#!/usr/bin/env bash
# Makes sure that there is a running Docker engine with Compose 2 and Buildx: what is
# there is used, what is missing is installed from the distribution's packages (apt).
# On a machine without an init system the engine is started directly.
set -euo pipefail

fail() { echo "engine: $*" >&2; exit 1; }
running() { docker info >/dev/null 2>&1; }
complete() { docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; }

running && complete && command -v curl >/dev/null && exit 0

command -v apt-get >/dev/null || fail 'there is no running Docker engine with Compose 2 and Buildx, and only on systems with apt can this script install one.'
[ "$(id -u)" = 0 ] || fail 'there is no running Docker engine with Compose 2 and Buildx, and only root can install and start one.'

update() { [ -n "${updated:-}" ] || apt-get update -qq >/dev/null || fail 'the package lists cannot be fetched.'; updated=1; }
offered() { [ -n "$(apt-cache show --no-all-versions "$1" 2>/dev/null)" ]; }
install_packages() {
	update
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
		fail "the packages $* cannot be installed."
}

command -v curl >/dev/null || install_packages curl ca-certificates

if ! running; then
	command -v dockerd >/dev/null || install_packages docker.io
	command -v iptables >/dev/null || install_packages iptables
	log=/var/log/signpost-dockerd.log
	if [ -d /run/systemd/system ]; then
		systemctl start docker >"$log" 2>&1 || true
	else
		setsid dockerd >"$log" 2>&1 </dev/null &
	fi
	for _ in $(seq 120); do running && break; sleep 0.5; done
	running || fail "the Docker engine does not start; it needs the rights of a real root (mounts, networks, control groups): $(grep -iE 'fail|error' "$log" | tail -n 1)"
fi

# newer PACKAGE...: takes single programs out of packages of Debian 13, on a
# release before it. They are static, so nothing else has to come along.
newer() {
	local mirror work
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$') ||
		fail 'this distribution has no package of Compose 2: install Docker as https://docs.docker.com/engine/install says.'
	work=$(mktemp -d)
	mkdir -p "$work/lists/partial" /usr/local/lib/docker/cli-plugins
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/sources.list"
	local apart=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$work/lists" -o APT::Sandbox::User=root)
	(cd "$work" && apt-get "${apart[@]}" update -qq >/dev/null && apt-get "${apart[@]}" download -qq "$@" >/dev/null 2>&1) ||
		fail "the packages $* cannot be fetched."
	for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$work/files"; done
	install -m 755 "$work"/files/usr/libexec/docker/cli-plugins/* /usr/local/lib/docker/cli-plugins/
	rm -rf "$work"
}

if ! complete; then
	update
	if offered docker-compose-v2; then # Ubuntu
		install_packages docker-compose-v2 docker-buildx
	elif apt-cache show --no-all-versions docker-compose 2>/dev/null | grep -q '^Version: 2'; then
		install_packages docker-compose docker-buildx
	else
		newer docker-compose docker-buildx
	fi
fi
complete || fail 'Compose 2 or Buildx is missing: install Docker as https://docs.docker.com/engine/install says.'
docker version --format 'engine: {{.Server.Version}}' >&2
