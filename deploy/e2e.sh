#!/usr/bin/env bash
# The Compose system from end to end, beside one that may be running already: its
# own project, volumes, network, port and secrets.
#
#   deploy/e2e.sh up       build the image and start everything
#   deploy/e2e.sh check    use it as people do, scale it, take containers away
#   deploy/e2e.sh chaos    deploy/chaos.sh --short
#   deploy/e2e.sh down     remove everything, volumes too
#   deploy/e2e.sh          all of it
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=signpost-e2e COMPOSE_DISABLE_ENV_FILE=1
export POSTGRES_PASSWORD=e2e-only-$(cksum <Dockerfile | cut -d' ' -f1) ADMIN_TOKEN=e2e-only-admin-token GRAFANA_PASSWORD=unused
export HTTP_PORT=${E2E_PORT:-18099} PROMETHEUS_PORT=${E2E_PROMETHEUS_PORT:-18090} ALERTMANAGER_PORT=${E2E_ALERTMANAGER_PORT:-18093} SIGNPOST_IMAGE=signpost:e2e
export PUBLIC_URL=http://localhost:$HTTP_PORT
export CACHE_SIZE=54321 # one setting of all those that are only passed on
export FRONT_SUBNET=172.31.252.0/24 FRONT_REPLICAS=172.31.252.0/25 FRONT_LB=172.31.252.250
# The authorities that this machine trusts, also while the image is built.
[ -n "${SSL_CERT_FILE:-}" ] || [ ! -r /etc/ssl/certs/ca-certificates.crt ] || export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt

fail() { echo "e2e: $*" >&2; docker compose ps -a >&2; docker compose logs --tail 20 lb api worker migrate >&2; exit 1; }
said() { printf 'e2e: %s (%d s)\n' "$*" $((SECONDS - since)); since=$SECONDS; }
since=$SECONDS

# ask METHOD PATH [BODY]: prints the answer; the HTTP status goes to $status.
ask() {
	local args=(-sS --max-time 10 -o /dev/stdout -w '\n%{http_code}' -X "$1" -H "Authorization: Bearer ${token:-$ADMIN_TOKEN}")
	[ -z "${3:-}" ] || args+=(-H 'Content-Type: application/json' -d "$3")
	answer=$(curl "${args[@]}" "$PUBLIC_URL$2")
	status=${answer##*$'\n'} answer=${answer%$'\n'*}
}
want() { ask "$1" "$2" "${4:-}"; [ "$status" = "$3" ] || fail "$1 $2 answered $status: $answer"; }
number() { sed -nE "s/.*\"$1\":([0-9]+).*/\\1/p" <<<"$answer"; }
# within SECONDS WHAT COMMAND...: until the command succeeds.
within() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do [ $SECONDS -lt $end ] || fail "$what"; sleep 0.3; done
}
clicks_are() { ask GET "/urls/$link"; [ "$(number clicks)" = "$1" ]; }
follow() { [ "$(curl -sS --max-time 10 -o /dev/null -w '%{http_code} %{redirect_url}' "$PUBLIC_URL/e2e")" = '302 https://example.com/' ]; }
# leads HOST PATH TARGET: a request for that host is redirected there.
leads() { [ "$(curl -sS --max-time 10 -o /dev/null -w '%{http_code} %{redirect_url}' -H "Host: $1" "$PUBLIC_URL$2")" = "302 $3" ]; }
containers() { docker compose ps -q "$1" | grep -c .; }
# scraped JOB N: Prometheus has an answer from N targets of a job.
scraped() {
	[ "$(curl -sS "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/targets?state=active" | sed 's/{"discoveredLabels"/\n&/g' |
		grep "\"scrapePool\":\"$1\"" | grep -c '"health":"up"')" = "$2" ]
}
# monitored APIS WORKERS: Prometheus sees all of them, the load balancer and what watches.
monitored() {
	within 60 "Prometheus does not scrape $1 api" scraped signpost-api "$1"
	within 60 "Prometheus does not scrape $2 workers" scraped signpost-worker "$2"
	for job in signpost-lb prometheus alertmanager; do within 60 "Prometheus does not scrape $job" scraped "$job" 1; done
}
# loaded KIND TYPE: Prometheus has evaluated every rule of a kind that the files hold.
loaded() {
	local want
	want=$(cat deploy/prometheus/rules/*.yml | grep -cE "^ +- $1:")
	[ "$want" -gt 0 ] && [ "$(curl -sS "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/rules?type=$2" | grep -oE '"health":"ok"' | wc -l)" = "$want" ]
}
notifies() { curl -sS "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/alertmanagers" | grep -qF '"activeAlertmanagers":[{"url":"http://alertmanager:9093/api/v2/alerts"}]'; }
lb_knows() { [ "$(curl -sS "http://$FRONT_LB:8404/metrics" | grep -cE '^haproxy_server_status\{proxy="ready",.*state="UP"\} 1')" = "$1" ]; }

up() {
	VERSION=$(git describe --tags --always --dirty 2>/dev/null || echo dev) COMMIT=$(git rev-parse HEAD 2>/dev/null || echo unknown)
	CREATED=$(git log -1 --format=%cI 2>/dev/null || true)
	export VERSION COMMIT CREATED
	down # what an interrupted run left
	docker compose build -q || fail 'the image cannot be built'
	said "built signpost:e2e, $(($(docker image inspect -f '{{.Size}}' "$SIGNPOST_IMAGE") / 1000000)) MB"
	docker compose up -d --wait >/dev/null 2>&1 || fail 'the system did not start'
	said 'from nothing to ready'
}

check() {
	local size id
	size=$(docker image inspect -f '{{.Size}}' "$SIGNPOST_IMAGE")
	[ "$size" -le 65000000 ] || fail "the image has $size bytes, more than 65 MB"
	[ "$(docker image inspect -f '{{.Config.User}}' "$SIGNPOST_IMAGE")" = 65532:65532 ] || fail 'the image runs as root'
	for id in $(docker compose ps -q api worker); do
		[ "$(docker inspect -f '{{.HostConfig.ReadonlyRootfs}}' "$id")" = true ] || fail 'a root file system is writable'
	done
	[ "$(docker compose ps --format '{{.Service}} {{.Publishers}}' | grep -cE '0\.0\.0\.0')" = 1 ] || fail 'more is published than the load balancer'
	[ -z "$(git log -1 --format=%cI 2>/dev/null)" ] || docker image inspect -f '{{index .Config.Labels "org.opencontainers.image.created"}}' "$SIGNPOST_IMAGE" |
		grep -qE '^[0-9]{4}-[0-9]{2}-[0-9]{2}T' || fail 'the image does not say when it was created'
	# Every variable of the configuration page can be set in .env, but for those that the containers fix.
	local name
	for name in $(sed -nE 's/^\| `([A-Z_]+)`.*/\1/p' docs/configuration.md); do
		case $name in LISTEN_ADDR | ADMIN_ADDR | SPOOL_DIR | SHUTDOWN_TIMEOUT) continue ;; esac
		grep -qE "^ +$name:" docker-compose.yml || fail "Compose does not pass $name on"
	done
	docker compose exec -T api /usr/local/bin/signpost config | grep -qE 'CACHE_SIZE.*54321' || fail 'a setting does not arrive'
	! POSTGRES_PASSWORD='' docker compose config -q 2>/dev/null || fail 'it would start without a password'
	said 'the image and the containers are as they should be'

	want POST /users 201 '{"username": "e2e", "email": "e2e@example.com"}'
	local user
	user=$(number id)
	want POST /urls 201 "{\"user_id\": $user, \"short_code\": \"e2e\", \"original_url\": \"https://example.com/\"}"
	link=$(number id)
	want POST /urls 400 '{"original_url": 7}'
	for _ in 1 2 3 4 5 6 7 8 9 10; do follow || fail 'the link does not lead to its destination'; done
	within 20 'ten clicks are not in the total' clicks_are 10
	docker compose exec -T api /usr/local/bin/signpost token create --name e2e --role reader 2>/dev/null >.e2e-token || fail 'no token was made'
	token=$(cat .e2e-token); rm -f .e2e-token
	want GET /users 200
	want POST /users 403 '{"username": "no", "email": "no@example.com"}'
	token=
	want POST /domains 201 '{"host": "go.e2e.example", "not_found_url": "https://example.org/none"}'
	want POST /urls 201 "{\"user_id\": $user, \"domain\": \"go.e2e.example\", \"short_code\": \"e2e\", \"original_url\": \"https://example.org/\"}"
	# A replica that does not know the host yet takes it for the main one, whose link e2e
	# would be clicked: so the code that neither has comes first, on either replica.
	for _ in 1 2 3 4; do within 2 'an unknown code of a custom domain does not lead on' leads go.e2e.example /unknown https://example.org/none; done
	for _ in 1 2 3 4; do leads go.e2e.example /e2e https://example.org/ || fail 'a custom domain does not lead to its own link'; done
	ask_upload users
	within 60 'the import of the examples did not end' import_done
	said 'links, clicks, tokens, domains and imports work'

	# Without Grafana, for which there is no local stand-in.
	docker compose --profile monitoring up -d --no-build --wait prometheus alertmanager >/dev/null 2>&1 || fail 'Prometheus and Alertmanager did not start'
	monitored 2 2
	within 30 'Prometheus has not loaded every alert' loaded alert alert
	within 30 'Prometheus has not loaded every recording rule' loaded record record
	within 30 'Prometheus does not know the Alertmanager' notifies
	said 'Prometheus scrapes everything, has its rules and knows its Alertmanager'

	docker compose up -d --no-build --wait --scale worker=5 --scale api=4 >/dev/null 2>&1 || fail 'scaling failed'
	[ "$(containers worker) $(containers api)" = '5 4' ] || fail 'there are not 5 workers and 4 api'
	within 15 'the load balancer does not use 4 replicas' lb_knows 4
	for _ in 1 2 3 4 5 6 7 8 9 10; do follow || fail 'the link does not work on four replicas'; done
	monitored 4 5
	docker compose up -d --no-build --wait >/dev/null 2>&1 || fail 'scaling back failed'
	within 15 'the load balancer does not use 2 replicas' lb_knows 2
	within 20 'twenty clicks are not in the total' clicks_are 20
	said 'scaled to 4 api and 5 workers and back'

	# Clicks that no database has seen survive the containers that took them.
	docker compose stop postgres >/dev/null 2>&1
	for _ in 1 2 3 4 5 6 7 8 9 10; do follow || fail 'a cached link does not work without Postgres'; done
	docker compose rm -sf api >/dev/null 2>&1
	docker compose up -d --no-build --wait >/dev/null 2>&1 || fail 'the system did not come back'
	within 60 'clicks were lost with their containers' clicks_are 30
	said 'clicks survive an outage and the removal of both api containers'
	deploy/roll.sh api worker >/dev/null || fail 'rolling failed'
	follow || fail 'the link does not work after rolling'
	said 'replaced every container, one after the other'
}

ask_upload() {
	answer=$(curl -sS --max-time 30 -H "Authorization: Bearer $ADMIN_TOKEN" -F "file=@examples/$1.csv" "$PUBLIC_URL/imports?kind=$1")
	import=$(number id)
	[ -n "$import" ] || fail "the upload answered $answer"
}
import_done() { ask GET "/imports/$import"; grep -q '"finished_at":"' <<<"$answer"; }

# With the volume that only the chaos lays over the others.
down() {
	COMPOSE_FILE=docker-compose.yml:deploy/chaos/small-spool.yml docker compose --profile monitoring down -v --remove-orphans --timeout 10 >/dev/null 2>&1
	said 'removed'
}

case ${1:-all} in
up) up ;;
check) check ;;
chaos) deploy/chaos.sh --short ;;
down) down ;;
all) trap down EXIT; up; check; deploy/chaos.sh --short ;;
*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
