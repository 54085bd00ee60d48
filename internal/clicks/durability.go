package clicks

import "fmt"

// Durability is what a click has survived once Append returned nil.
type Durability int

const (
	// Process means: the death of the process. The record is in the kernel's page
	// cache. The default.
	Process Durability = iota
	// Disk means: a power cut as well. The record is on the device (fdatasync,
	// shared by all clicks that wait at that moment).
	Disk
	// Memory means: nothing. The record is in the memory of the process.
	Memory
)

// ParseDurability reads what String writes.
func ParseDurability(s string) (Durability, error) {
	for _, d := range []Durability{Process, Disk, Memory} {
		if s == d.String() {
			return d, nil
		}
	}
	return Process, fmt.Errorf("unknown click durability %q: use process, disk or memory", s)
}

// String returns "process", "disk" or "memory".
func (d Durability) String() string {
	switch d {
	case Process:
		return "process"
	case Disk:
		return "disk"
	case Memory:
		return "memory"
	}
	return fmt.Sprintf("Durability(%d)", int(d))
}

// UnmarshalText lets configuration read a Durability.
func (d *Durability) UnmarshalText(text []byte) error {
	v, err := ParseDurability(string(text))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// MarshalText is the counterpart of UnmarshalText.
func (d Durability) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
