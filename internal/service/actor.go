package service

import "fmt"

// Role says how much a token may do. Each role may also do everything that the lower
// roles may do.
type Role int

// The roles. Readers read users, links, events, statistics and imports; editors also write
// and import links; admins do everything.
const (
	RoleReader Role = iota + 1
	RoleEditor
	RoleAdmin
)

// The least role that each kind of work needs.
const (
	ReadsUsers      = RoleReader
	WritesUsers     = RoleAdmin
	ReadsLinks      = RoleReader
	WritesLinks     = RoleEditor
	ManagesDomains  = RoleAdmin
	ReadsEvents     = RoleReader
	ReadsStatistics = RoleReader
	ManagesTokens   = RoleAdmin
	ManagesMarks    = RoleAdmin
	ManagesBatches  = RoleAdmin
	ReadsSystem     = RoleAdmin
	ReadsImports    = RoleReader
	ImportsLinks    = RoleEditor // and cancels, retries and undoes imports of links
	ImportsAll      = RoleAdmin  // the same for users and events
)

var roleNames = [...]string{"none", "reader", "editor", "admin"}

// String returns the name of the role as it is spelled in the API and the database.
func (r Role) String() string { return roleNames[r] }

// ParseRole returns the role with that name; ok is false if there is none.
func ParseRole(name string) (role Role, ok bool) {
	for r := RoleReader; r <= RoleAdmin; r++ {
		if roleNames[r] == name {
			return r, true
		}
	}
	return 0, false
}

// Actor is the bearer of a token, in whose name a request is made. The zero Actor may
// do nothing.
type Actor struct {
	TokenID *int64 // nil for the bootstrap token
	Name    string
	Role    Role
}

// Token returns a number that tells the tokens of actors apart: the id, or 0 for the
// bootstrap token.
func (a Actor) Token() int64 {
	if a.TokenID == nil {
		return 0
	}
	return *a.TokenID
}

// Require returns an error unless the actor has at least this role.
func (a Actor) Require(role Role) error {
	if a.Role < role {
		return Forbidden(fmt.Sprintf("this needs a token of the role %s, yours is %s", role, a.Role))
	}
	return nil
}
