package csvimport

import "fmt"

// A Policy says what becomes of a row that claims a key which is taken.
type Policy string

// The policies, as the API spells them.
const (
	// PolicyReject reports the row.
	PolicyReject Policy = "reject"
	// PolicySkip passes the row over, and counts it.
	PolicySkip Policy = "skip"
	// PolicyUpdate gives the row that has the key what the file says. Events
	// have no such policy: they are a record.
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
