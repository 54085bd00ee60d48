#!/usr/bin/env bash
# Checks what git tracks: no binaries, coverage files or profiles, and no
# invisible or direction-changing Unicode, which can hide what code does.
set -euo pipefail
bad=0
fail() { printf '%s\n' "$*" >&2; bad=1; }

while IFS= read -r -d '' file; do
	[ -f "$file" ] || continue
	case $file in
	*.test | *.prof | *.out | coverage.* | */coverage.* | *.exe | *.so | *.o) fail "tracked by mistake: $file"; continue ;;
	*.png | *.ico | *.zip | *.xlsx | *.gz | *.zst) continue ;;
	testdata/* | */testdata/*) continue ;;
	esac
	if [ "$(head -c 4 "$file" | od -An -tx1 | tr -d ' \n')" = 7f454c46 ]; then
		fail "a binary is tracked: $file"
	elif [ -s "$file" ] && ! LC_ALL=C grep -Iq . "$file"; then
		fail "a binary file is tracked: $file"
	elif LC_ALL=C grep -nP '\xE2\x80[\x8B-\x8F\xAA-\xAE]|\xE2\x81[\xA0-\xAF]|\xEF\xBB\xBF|\xC2\xAD|\xF3\xA0[\x80-\x81]' "$file" >&2; then
		fail "invisible Unicode in $file"
	fi
done < <(git ls-files -z)
exit $bad
