#!/usr/bin/env bash
# Builds HEAD twice, in two folders and the second time with nothing cached, and
# compares the binaries byte for byte.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
commit=$(git rev-parse HEAD)
version=$(git describe --tags --always)

# build FOLDER: the commit alone, without what the working tree has besides.
build() {
	mkdir -p "$1"
	git archive "$commit" | tar -x -C "$1"
	make -C "$1" --no-print-directory build VERSION="$version" COMMIT="$commit"
}

build "$work/first"
# Its own cache: otherwise the second build would be a copy of the first.
GOCACHE=$work/cache build "$work/another/folder/with/a/longer/name"

first=$(sha256sum <"$work/first/bin/signpost")
second=$(sha256sum <"$work/another/folder/with/a/longer/name/bin/signpost")
printf 'first  %s\nsecond %s\n' "$first" "$second"
[ "$first" = "$second" ] || { echo "the two builds of $commit differ" >&2; exit 1; }
echo "two builds of $commit are the same"
