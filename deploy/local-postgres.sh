#!/bin/sh
# Entry point of the Postgres image that local-images.sh makes: on the first start a
# cluster with POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB, then the server. It
# stands in for the official image in builds without a registry, and does no more
# than docker-compose.yml asks for.
set -eu
case ${1:-} in
postgres) shift ;;
'' | -*) ;;
*) exec "$@" ;; # another command, as in the official image
esac
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	: "${POSTGRES_PASSWORD:?it has to be set}" "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}"
	secret=$(mktemp)
	printf '%s\n' "$POSTGRES_PASSWORD" >"$secret"
	# Made elsewhere first: a start that is cut short leaves nothing half done.
	initdb -D "$PGDATA/new" -U "$POSTGRES_USER" --pwfile="$secret" --auth-host=scram-sha-256 --auth-local=trust \
		--encoding=UTF8 --locale=C.UTF-8 >/dev/null
	rm -f "$secret"
	echo 'host all all all scram-sha-256' >>"$PGDATA/new/pg_hba.conf"
	printf 'CREATE DATABASE "%s"\n' "$POSTGRES_DB" |
		postgres --single -D "$PGDATA/new" postgres >/dev/null
	find "$PGDATA/new" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv {} "$PGDATA/" \;
	mv "$PGDATA/new/PG_VERSION" "$PGDATA/"
	rmdir "$PGDATA/new"
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' "$@"
