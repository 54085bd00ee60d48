package linkcache

import "strings"

// MainDomain is the domain of links for which no domain is named. Its host is the one
// in PUBLIC_URL.
const MainDomain int64 = 1

// A Key names a link by its domain and its code. Keys are comparable.
type Key struct {
	domain int64
	code   string
}

// NewKey returns the key of a code in a domain. It shares the memory of code.
func NewKey(domain int64, code string) Key { return Key{domain, code} }

// Domain returns the id of the key's domain.
func (k Key) Domain() int64 { return k.domain }

// Code returns the key's short code.
func (k Key) Code() string { return k.code }

// clone returns a key that shares no memory with k.
func (k Key) clone() Key { return Key{k.domain, strings.Clone(k.code)} }
