#!/bin/sh
# Downloads the Go modules of the program and of every tool, so that nothing that
# compiles later has to wait for the network.
set -eu
cd "$(dirname "$0")/.."
for mod in $(git ls-files go.mod '*/go.mod'); do
	(cd "$(dirname "$mod")" && go mod download)
done
