#!/bin/sh
# Replaces the containers of the given services one after the other with new ones,
# from the image and the settings that are there now. "docker compose up" would
# replace all replicas of a service at the same time.
#
#   deploy/roll.sh api worker
set -eu
cd "$(dirname "$0")/.."

# ready ID: waits until the process in a container can do all its work.
ready() {
	tries=0
	until docker exec "$1" /usr/local/bin/signpost healthcheck --url http://localhost:9090/ready >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 120 ] || { echo "roll: $1 did not become ready; the replicas that are left go on running" >&2; exit 1; }
		sleep 0.5
	done
}

for service in "$@"; do
	old=$(docker compose ps -q "$service")
	count=$(printf '%s\n' "$old" | grep -c .)
	for id in $old; do
		docker stop "$id" >/dev/null
		docker rm "$id" >/dev/null
		docker compose up -d --no-deps --no-build --no-recreate --scale "$service=$count" "$service" >/dev/null 2>&1
		for new in $(docker compose ps -q "$service"); do
			ready "$new"
		done
		# The load balancer looks for new addresses once a second.
		sleep 3
		echo "roll: replaced a container of $service"
	done
done
