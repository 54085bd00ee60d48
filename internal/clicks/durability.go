package clicks

// Durability says which failures a click survives after Append returned nil. The zero
// value means Process.
type Durability string

const (
	// Process means the death of the process. The record is in the kernel's page cache.
	Process Durability = "process"
	// Disk means a power cut as well. The record is on the device (fdatasync, shared by
	// all clicks that wait at that moment).
	Disk Durability = "disk"
)
