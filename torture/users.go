package main

import (
	"bufio"
	"crypto/md5" //nolint:gosec // a digest to compare, as Postgres computes it
	"encoding/hex"
	"fmt"
	"hash"
	"os"
	"path/filepath"
)

// expectation is the result of applying the file row by row in its order.
type expectation struct {
	imported, rejected int64
	// Digests in the order of lines: of the rows that won, and of the rejected lines with
	// field and kind of problem.
	winners, refused string
}

// writeUsers writes n users; of a hundred lines one is wrong, and three claim
// the name or address of a line far away. It applies them row by row as well,
// by the rule alone and without Signpost: a row is taken when it has an address
// and neither its name nor its address belongs to a row taken before.
func writeUsers(dir string, n int) (string, expectation, error) {
	f, err := os.Create(filepath.Join(dir, "users.csv"))
	if err != nil {
		return "", expectation{}, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_, _ = fmt.Fprintln(w, "username,email") // an error stays until Flush
	names, addresses := make([]bool, n+1), make([]bool, n+1)
	var want expectation
	winners, refused := newDigest(), newDigest()
	for i := range n {
		line := i + 2 // behind the header
		name, address := claims(i, n)
		email := fmt.Sprintf("user%d@example.org", address)
		problem := ""
		switch {
		case address < 0:
			email, problem = "no address", "email:value"
		case names[name]:
			problem = "username:taken"
		case addresses[address]:
			problem = "email:taken"
		}
		_, _ = fmt.Fprintf(w, "user%d,%s\n", name, email)
		if problem != "" {
			want.rejected++
			refused.add("%d:%s", line, problem)
			continue
		}
		names[name], addresses[address] = true, true
		want.imported++
		winners.add("%d:user%d:%s", line, name, email)
	}
	want.winners, want.refused = winners.sum(), refused.sum()
	if err := w.Flush(); err != nil {
		return "", expectation{}, err
	}
	return f.Name(), want, f.Close()
}

// claims returns the numbers of the name and the address of row i of n, -1 for
// an address that is none.
func claims(i, n int) (name, address int) {
	switch i % 100 {
	case 17:
		return i, -1
	case 42:
		return (i*7 + 1) % n, i
	case 43:
		return i, (i*11 + 3) % n
	case 44:
		return n - i, (i + n/2) % n
	}
	return i, i
}

// digest computes md5(string_agg(..., ',')) as Postgres does.
type digest struct {
	hash hash.Hash
	some bool
}

func newDigest() *digest { return &digest{hash: md5.New()} } //nolint:gosec // see above

func (d *digest) add(format string, args ...any) {
	if d.some {
		format = "," + format
	}
	d.some = true
	_, _ = fmt.Fprintf(d.hash, format, args...) // a hash takes everything
}

func (d *digest) sum() string { return hex.EncodeToString(d.hash.Sum(nil)) }
