package csvimport

import "fmt"

// A Policy says what happens to a row with a key that another row already has. The
// worker carries it out (worker/import_conflicts.go).
type Policy string

// The policies, as the API spells them.
const (
	// PolicyReject reports the row.
	PolicyReject Policy = "reject"
	// PolicySkip leaves the row out, and counts it.
	PolicySkip Policy = "skip"
	// PolicyUpdate changes the row that has the key to the values in the file. It does
	// not exist for events, which are a record of the past.
	PolicyUpdate Policy = "update"
)

// ParsePolicy returns the policy that s names, for files of kind; "" is
// PolicyReject. The error is fit for users.
func ParsePolicy(s string, kind Kind) (Policy, error) {
	switch policy := Policy(s); {
	case s == "":
		return PolicyReject, nil
	case policy == PolicyReject || policy == PolicySkip:
		return policy, nil
	case kind == KindEvents:
		return "", fmt.Errorf("must be %s or %s for %s", PolicyReject, PolicySkip, kind)
	case policy == PolicyUpdate:
		return policy, nil
	}
	return "", fmt.Errorf("must be %s, %s or %s", PolicyReject, PolicySkip, PolicyUpdate)
}
