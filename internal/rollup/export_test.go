package rollup

import "time"

// DigestOf returns a digest that adds cells to a scope on a day.
func DigestOf(scope int64, day time.Time, cells []byte) []byte {
	return encodeDigest([]entry{{key: key{scope, dayNumber(day)}, owner: 1, added: cells}})
}
