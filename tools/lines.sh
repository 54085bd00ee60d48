#!/usr/bin/env bash
# lines.sh [BEFORE [AFTER]]: counts lines of hand-written Go by package, production
# and test apart, without comments, blank lines and generated files. AFTER is a
# revision, and the working tree if it is not given; with BEFORE the differences are
# printed too.
set -euo pipefail
cd "$(dirname "$0")/.."

# count [REVISION]: one line a package: name, production, test.
count() {
	if [ $# -gt 0 ]; then
		git archive "$1"
	else
		git ls-files -z -co --exclude-standard '*.go' | xargs -0 ls -d 2>/dev/null | tar -c -T -
	fi | tar -x -C "$dir" --wildcards '*.go'
	(cd "$dir" && find . -name '*.go' -print0 | sort -z | xargs -0 awk '
		FNR == 1 {
			generated = block = 0
			file = substr(FILENAME, 3)
			package = file; if (!sub(/\/[^\/]*$/, "", package)) package = "."
			test = file ~ /_test\.go$/
		}
		/^\/\/ Code generated .* DO NOT EDIT\.$/ { generated = 1 }
		generated { next }
		block { if (/\*\//) block = 0; next }
		/^[ \t]*\/\*/ { if (!/\*\//) block = 1; next }
		/^[ \t]*(\/\/.*)?$/ { next }
		{ seen[package]; if (test) tests[package]++; else production[package]++ }
		END { for (p in seen) print p, production[p] + 0, tests[p] + 0 }')
	find "$dir" -mindepth 1 -delete
}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
{
	if [ $# -gt 0 ]; then count "$1" | sed 's/^/before /'; fi
	if [ $# -gt 1 ]; then count "$2"; else count; fi | sed 's/^/after /'
} | awk -v compare=$# '
	{ seen[$2]; p[$1, $2] = $3; t[$1, $2] = $4; sum_p[$1] += $3; sum_t[$1] += $4 }
	function row(name, bp, bt, ap, at) {
		if (compare) return sprintf("%-28s %7d %7d %+7d   %7d %7d %+7d", name, bp, ap, ap - bp, bt, at, at - bt)
		return sprintf("%-28s %7d %7d", name, ap, at)
	}
	END {
		if (compare) {
			printf "%-28s %23s   %23s\n", "", "production", "test"
			printf "%-28s %7s %7s %7s   %7s %7s %7s\n", "package", "before", "after", "", "before", "after", ""
		} else printf "%-28s %7s %7s\n", "package", "product", "test"
		for (n in seen) print row(n, p["before", n], t["before", n], p["after", n], t["after", n]) | "sort"
		close("sort")
		print row("total", sum_p["before"], sum_t["before"], sum_p["after"], sum_t["after"])
	}'
