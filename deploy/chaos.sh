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
PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" = 0 ]; then
	"$binary" "$@"
else
	# With the environment, which may name the Compose project and hold its secrets
	# and ports; sudo replaces PATH whatever it is told to keep.
	sudo --preserve-env env "PATH=$PATH" "$binary" "$@"
fi
