#!/bin/sh
# check-coverage.sh PROFILE MINIMUM: fails when less than MINIMUM percent of
# the hand-written statements were run. Generated code does not count, nor do
# the programs that are tests themselves (abuse, bench, torture, chaos).
set -eu
awk -v minimum="$2" '
NR == 1 { next }
/\/(queries|abuse|bench|torture|deploy)\// { next }
{
	if (!($1 in statements)) { statements[$1] = $2; total += $2 }
	if ($3 > 0 && !($1 in hit)) { hit[$1] = 1; covered += $2; }
}
END {
	if (total == 0) { print "coverage: the profile is empty" > "/dev/stderr"; exit 1 }
	percent = 100 * covered / total
	printf "coverage: %.1f %% of %d hand-written statements (at least %d %%)\n", percent, total, minimum
	if (percent < minimum) { exit 1 }
}' "$1"
