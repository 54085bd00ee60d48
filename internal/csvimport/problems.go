package csvimport

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/signpost/signpost/internal/links"
)

// A ProblemKind says in a word why rows were rejected, or names a notice of rows that
// were imported. The words are part of the API and stored.
type ProblemKind string

// The kinds.
const (
	ProblemEmpty    ProblemKind = "empty"    // a required value is empty
	ProblemEncoding ProblemKind = "encoding" // the file is not in the encoding it was read in
	ProblemBytes    ProblemKind = "bytes"    // stray bytes that are no text
	ProblemQuotes   ProblemKind = "quotes"   // quotes that do not match
	ProblemCells    ProblemKind = "cells"    // not as many cells as the header has
	ProblemLength   ProblemKind = "length"
	ProblemTime     ProblemKind = "time"
	ProblemNumber   ProblemKind = "number"
	ProblemID       ProblemKind = "id"
	ProblemCode     ProblemKind = "code"
	ProblemTarget   ProblemKind = "target"
	ProblemOwnLink  ProblemKind = "own_link" // the target is a link of this service
	ProblemValue    ProblemKind = "value"    // any other invalid value
	ProblemMissing  ProblemKind = "missing"  // the row refers to something that does not exist
	ProblemTaken    ProblemKind = "taken"    // another row has the key
	ProblemMismatch ProblemKind = "mismatch" // the keys of the row belong to several rows
	ProblemReserved ProblemKind = "reserved" // a code that answers only under /r/
	ProblemOther    ProblemKind = "other"
)

// Outcomes of rows with a problem.
const (
	OutcomeRejected = "rejected"
	OutcomeImported = "imported" // the rows were imported, and there is a notice about them
)

// A Problem is the fault that several rejected rows have in common, or a notice about
// several rows that were imported.
type Problem struct {
	Outcome string // OutcomeRejected or OutcomeImported
	Column  string // like that of a Reject
	Kind    ProblemKind
	Reason  string // of the first of the rows; follows the column's name
	Rows    int64
	Line    int64  // of the first of the rows
	Cure    string // a sentence without its full stop; "" if there is none
}

// MaxProblems is how many Problems an import has at most.
const MaxProblems = 20

// Problems turns the groups that were counted during an import into the problems that
// people are shown. The order is: an encoding that is not the file's, once for the
// whole file; then the reasons for rejections, the most frequent first and those
// without a kind last; then notices about rows that were imported. When there are too
// many, the last ones that reject are summed up in one.
//
// unreadable are some of the records that were rejected for their encoding, and
// policy is the import's.
func (l Layout) Problems(groups []Problem, unreadable []string, policy Policy) []Problem {
	groups = mergeEncoding(groups, unreadable)
	slices.SortStableFunc(groups, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	groups = sumUp(groups)
	for i := range groups {
		groups[i].Cure = cmp.Or(groups[i].Cure, l.cure(groups[i], policy))
		groups[i].Reason = strings.TrimSuffix(groups[i].Reason, hintEscape)
	}
	return groups
}

func rank(p Problem) int {
	switch {
	case p.Kind == ProblemEncoding:
		return 0
	case p.Outcome != OutcomeRejected:
		return 3
	case p.Kind == ProblemOther:
		return 2
	}
	return 1
}

// mergeEncoding merges the groups that say that text is not in the file's encoding: into
// one for the whole file, or, if other rows have valid characters beyond ASCII, so that
// the encoding is right after all, into one of stray bytes for each column.
func mergeEncoding(groups []Problem, unreadable []string) []Problem {
	stray := slices.ContainsFunc(groups, func(p Problem) bool { return p.Kind == ProblemBytes })
	var merged []Problem
	for _, p := range groups {
		switch {
		case p.Kind != ProblemEncoding && p.Kind != ProblemBytes:
			merged = append(merged, p)
			continue
		case stray:
			p.Kind = ProblemBytes
		default:
			p.Column = ""
			p.Reason, p.Cure = "the file is not UTF-8", "encoding=… names its encoding, or save it as UTF-8"
			if guess := GuessEncoding(unreadable); guess != "" {
				p.Reason += ", it looks like " + names[guess]
				p.Cure = "encoding=" + string(guess) + " reads it"
			}
		}
		same := func(q Problem) bool { return q.Kind == p.Kind && q.Column == p.Column }
		if at := slices.IndexFunc(merged, same); at >= 0 {
			merged[at].Rows, merged[at].Line = merged[at].Rows+p.Rows, min(merged[at].Line, p.Line)
			continue
		}
		merged = append(merged, p)
	}
	return merged
}

// sumUp cuts sorted groups down to MaxProblems: the last of those that reject become
// one group.
func sumUp(groups []Problem) []Problem {
	notices := 0
	for _, p := range groups {
		if p.Outcome == OutcomeImported {
			notices++
		}
	}
	rejecting := len(groups) - notices
	room := max(MaxProblems-notices, 1)
	if rejecting <= room {
		return groups
	}
	rest := Problem{Outcome: OutcomeRejected, Kind: ProblemOther, Reason: "other reasons", Line: groups[room-1].Line}
	for _, p := range groups[room-1 : rejecting] {
		rest.Rows += p.Rows
		rest.Line = min(rest.Line, p.Line)
	}
	return slices.Concat(groups[:room-1], []Problem{rest}, groups[rejecting:])
}

// cure returns the change that would let most rows of a group be accepted, or "" if
// they can only be mended one by one.
func (l Layout) cure(p Problem, policy Policy) string {
	switch {
	case p.Kind == ProblemTaken && policy == PolicyReject && l.Kind == KindEvents:
		return "on_conflict=skip passes over rows that are there already"
	case p.Kind == ProblemTaken && policy == PolicyReject:
		return "on_conflict=skip passes over rows that are there already, on_conflict=update updates what they name"
	case p.Kind == ProblemMismatch && l.Has(colID), p.Kind == ProblemID && p.Column == colID:
		return l.unmap(colID) + " leaves the ids of the file out"
	case p.Kind == ProblemMissing && p.Column == colUserID && l.Kind == KindLinks && l.Has(colUserID):
		return "import the users first, or give the links to one with user_id=… and " + l.unmap(colUserID)
	case p.Kind == ProblemMissing && p.Column == colUserID:
		return "import the users first"
	case p.Kind == ProblemMissing && p.Column == colURLID:
		return "import the links first"
	case p.Kind == ProblemEmpty && p.Column == colUserID && l.Kind == KindLinks:
		return "user_id=… names the owner of links without one"
	case strings.HasSuffix(p.Reason, hintEscape):
		return `escape=backslash reads a file that writes quotes as \"`
	case p.Kind == ProblemCells:
		return fmt.Sprintf("a cell that holds the delimiter, %q, must be in quotes", cmp.Or(l.Delimiter, ","))
	}
	return ""
}

// unmap returns the parameter that makes an import ignore a column of the file.
func (l Layout) unmap(column string) string {
	if at := l.position(column); at >= 0 && at < len(l.Header) {
		column = shown(l.Header[at])
	}
	if strings.Contains(column, " ") {
		return fmt.Sprintf("mapping=%q", column+":")
	}
	return "mapping=" + column + ":"
}

// A Notice is a remark on a row that was imported.
type Notice struct {
	Line   int64
	Column string
	Kind   ProblemKind
	Reason string // fit for users; follows the column's name
}

// Notice returns the remark on an imported link, or nil.
func (l *Link) Notice() *Notice {
	if l.ShortCode == "" || !links.Reserved(l.ShortCode) {
		return nil
	}
	return &Notice{l.Line, colShortCode, ProblemReserved, "is a reserved word, so the link answers under /r/" + l.ShortCode}
}
