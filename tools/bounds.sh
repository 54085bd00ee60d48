#!/bin/sh
# bounds.sh FILE: prints what the tests saw of the bounds that users are
# promised, the worst of each. A package whose result was cached reports nothing.
set -eu
if [ ! -s "$1" ]; then
	echo "bounds: none were measured"
	exit
fi
awk -F '\t' '
!($1 in worst) || $3 + 0 > worst[$1] { worst[$1] = $3 + 0 }
{ promised[$1] = $2; times[$1]++ }
END { for (what in worst) printf "bound: %s: promised %s, seen %g ms (the worst of %d)\n", what, promised[what], worst[what], times[what] }
' "$1" | sort
