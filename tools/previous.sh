#!/usr/bin/env bash
# previous.sh [REVISION]: builds the release before this one and runs it on a
# database that this release has migrated (I8). Without REVISION it is the last tag,
# or as long as there is none, the last commit that was handed over before.
set -euo pipefail
cd "$(dirname "$0")/.."

revision=${1:-$(git describe --tags --abbrev=0 HEAD^ 2>/dev/null || true)}
revision=${revision:-5f1298a}
if ! commit=$(git rev-parse --verify --quiet "$revision^{commit}"); then
	echo "previous: this clone does not have $revision: fetch its history (git fetch --unshallow)" >&2
	exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
git archive "$commit" | tar -x -C "$work"
make -C "$work" --no-print-directory build VERSION=previous COMMIT="$commit"
echo "previous: $(git log -1 --format='%h of %cs' "$commit")"
SIGNPOST_PREVIOUS=$work/bin/signpost go test -tags previous -count=1 -run '^TestPreviousRelease$' -v ./internal/cli | grep -v '^=== '
