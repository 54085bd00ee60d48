// Package zone finds time zones by their names in the IANA database. The zones are
// part of the program, so that they are known wherever it runs.
package zone

import (
	"errors"
	"time"
	_ "time/tzdata" // used where the system has no zones
)

// ErrUnknown is the error for a name that is none of the IANA database. Its text can
// follow the name of a field.
var ErrUnknown = errors.New("must be the name of a time zone, such as UTC or Europe/Berlin")

// Load returns the zone with a name of the IANA database; "" is UTC. It refuses names
// that mean something else on each machine, such as Local and localtime, and other
// files that a system keeps beside its zones. Any error is ErrUnknown.
func Load(name string) (*time.Location, error) {
	if name != "" && (name[0] < 'A' || name[0] > 'Z') || name == "Local" {
		return nil, ErrUnknown
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, ErrUnknown
	}
	return zone, nil
}
