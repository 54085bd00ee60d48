#!/bin/sh
# Makes .env from .env.example, with fresh secrets. An .env that is there is kept.
set -eu
cd "$(dirname "$0")/.."
[ -e .env ] && exit 0
secret() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
umask 077
sed -e "s/^POSTGRES_PASSWORD=$/&$(secret)/" -e "s/^ADMIN_TOKEN=$/&$(secret)/" \
	-e "s/^GRAFANA_PASSWORD=$/&$(secret)/" .env.example >.env.new
mv .env.new .env
echo "made .env with fresh secrets" >&2
