#!/bin/sh
# Disturbs the system that "make up" started, under load, prints one table, and
# fails if a promise was broken. Needs root, Go, nsenter and iptables.
#
#   deploy/chaos.sh [-short] [-only PART-OF-A-NAME]
set -eu
cd "$(dirname "$0")/.."

for tool in go docker nsenter iptables; do
	command -v "$tool" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
		{ echo "chaos: $tool is missing" >&2; exit 1; }
done
# Built as whoever calls, run as root: it kills processes inside containers.
binary=$(mktemp)
trap 'rm -f "$binary"' EXIT
go build -o "$binary" ./deploy/chaos
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo --preserve-env=PATH"
PATH=$PATH:/usr/sbin:/sbin $as_root "$binary" "$@"
