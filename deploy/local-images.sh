#!/usr/bin/env bash
# Offline builds: provides the images that Dockerfile and docker-compose.yml start
# from, so that both run unchanged where no registry can be reached. What is there,
# or can be pulled, is left as it is. Everything else is made from the packages of
# this machine's own distribution (Debian or Ubuntu; needs root and debootstrap),
# and the Go compiler from this machine's own. Such images are for building and
# testing, not for production: nobody updates them.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "local-images: $*" >&2; }
fail() { say "$*"; exit 1; }

# The names that the two files give by default.
default_of() { sed -nE "s/.*\\\$\\{$1:-([^}]*)\\}.*/\\1/p" docker-compose.yml | head -n 1; }
stage() { awk -v name="$1" '$1 == "FROM" && $NF == name { print $(NF - 2) }' Dockerfile; }
golang=${GO_IMAGE:-$(stage go-default)}
runtime=${RUNTIME_IMAGE:-$(stage runtime-default)}
haproxy=${HAPROXY_IMAGE:-$(default_of HAPROXY_IMAGE)}
postgres=${POSTGRES_IMAGE:-$(default_of POSTGRES_IMAGE)}
redis=${REDIS_IMAGE:-$(default_of REDIS_IMAGE)}
prometheus=${PROMETHEUS_IMAGE:-$(default_of PROMETHEUS_IMAGE)}
alertmanager=${ALERTMANAGER_IMAGE:-$(default_of ALERTMANAGER_IMAGE)}
# Not Grafana's: the distribution has no package of it.

missing=()
for image in "$golang" "$runtime" "$haproxy" "$postgres" "$redis" "$prometheus" "$alertmanager"; do
	docker image inspect "$image" >/dev/null 2>&1 && continue
	# Where the first cannot be pulled, the others cannot either.
	if [ ${#missing[@]} = 0 ] && timeout 300 docker pull -q "$image" >/dev/null 2>&1; then continue; fi
	missing+=("$image")
done
[ ${#missing[@]} -gt 0 ] || exit 0

[ "$(id -u)" = 0 ] || fail "no registry can be reached, and only root can make ${missing[*]} from packages."
. /etc/os-release
[ -n "${VERSION_CODENAME:-}" ] && command -v apt-get >/dev/null ||
	fail "no registry can be reached, and only on Debian and Ubuntu can ${missing[*]} be made from packages."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

# packages makes a root file system with the servers, none of them started.
packages() {
	say "making a root file system from packages of $VERSION_CODENAME"
	if ! command -v debootstrap >/dev/null; then
		apt-get update -qq >/dev/null
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >/dev/null 2>&1 ||
			fail 'debootstrap cannot be installed.'
	fi
	local mirror
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 -E '/(debian|ubuntu)/*$') ||
		fail 'apt has no mirror of the distribution itself.'
	debootstrap --variant=minbase --include=ca-certificates,tzdata "$VERSION_CODENAME" "$root" "$mirror" >"$work/log" 2>&1 ||
		fail "debootstrap failed: $(tail -n 1 "$work/log")"
	mkdir -p "$root/etc/postgresql-common"
	echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -qq --no-install-recommends \
		postgresql redis-server haproxy >"$work/log" 2>&1 || fail "installing the servers failed: $(tail -n 1 "$work/log")"
	# Programs alone: as packages they bring half a desktop for their pages.
	DEBIAN_FRONTEND=noninteractive chroot "$root" sh -ec '
		mkdir /tmp/debs && cd /tmp/debs && apt-get -o APT::Sandbox::User=root download -qq prometheus prometheus-alertmanager
		for deb in *.deb; do dpkg-deb -x "$deb" .; done
		mv usr/bin/* /usr/local/bin/
		mkdir -p /usr/share/prometheus && mv usr/share/prometheus/alertmanager /usr/share/prometheus/ # templates
		rm -rf /tmp/debs' >"$work/log" 2>&1 || fail "unpacking Prometheus failed: $(tail -n 1 "$work/log")"
	rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
	cp deploy/local-postgres.sh "$root/usr/local/bin/docker-entrypoint.sh"
	tar -C "$root" -c . | docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - signpost-local-base >/dev/null
}

# derive IMAGE: the base under another name, with what standard input adds.
derive() { say "making $1"; docker build -q -t "$1" - >/dev/null; }

go_image() {
	say "making $1 from $(go env GOROOT)"
	printf '%s\n' 'FROM signpost-local-base' 'COPY . /usr/local/go' 'WORKDIR /go' \
		'ENV GOPATH=/go GOTOOLCHAIN=local PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' |
		docker build -q -t "$1" -f - "$(go env GOROOT)" >/dev/null
}

# static_image has what a static binary needs, and no program at all.
static_image() {
	say "making $1"
	local dir=$work/static
	mkdir -p "$dir"/{etc/ssl/certs,usr/share,tmp,home/nonroot}
	cp "$root/etc/ssl/certs/ca-certificates.crt" "$dir/etc/ssl/certs/"
	cp -r "$root/usr/share/zoneinfo" "$dir/usr/share/"
	echo 'nonroot:x:65532:65532::/home/nonroot:/' >"$dir/etc/passwd"
	echo 'nonroot:x:65532:' >"$dir/etc/group"
	chown 65532:65532 "$dir/home/nonroot"
	chmod 1777 "$dir/tmp"
	tar -C "$dir" -c . | docker import --change 'USER 65532' --change 'WORKDIR /home/nonroot' - "$1" >/dev/null
}

packages
for image in "${missing[@]}"; do
	case $image in
	"$golang") go_image "$image" ;;
	"$runtime") static_image "$image" ;;
	"$haproxy") derive "$image" <<-'DOCKERFILE' ;;
		FROM signpost-local-base
		USER haproxy
		CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
		DOCKERFILE
	"$redis") derive "$image" <<-'DOCKERFILE' ;;
		FROM signpost-local-base
		USER redis
		WORKDIR /data
		CMD ["redis-server"]
		DOCKERFILE
	"$prometheus") derive "$image" <<-'DOCKERFILE' ;;
		FROM signpost-local-base
		RUN install -d -o nobody /prometheus
		USER nobody
		WORKDIR /prometheus
		ENTRYPOINT ["prometheus"]
		DOCKERFILE
	"$alertmanager") derive "$image" <<-'DOCKERFILE' ;;
		FROM signpost-local-base
		RUN install -d -o nobody /alertmanager
		USER nobody
		WORKDIR /alertmanager
		ENTRYPOINT ["prometheus-alertmanager"]
		CMD ["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"]
		DOCKERFILE
	"$postgres") derive "$image" <<-'DOCKERFILE' ;;
		FROM signpost-local-base
		ENV PGDATA=/var/lib/postgresql/data
		RUN install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data && \
		    install -d -o postgres -g postgres /run/postgresql && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/
		USER postgres
		VOLUME /var/lib/postgresql/data
		STOPSIGNAL SIGINT
		ENTRYPOINT ["docker-entrypoint.sh"]
		CMD ["postgres"]
		DOCKERFILE
	esac
done
