package rollup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// Dimension is a property of clicks by which they are broken down. Its number is part
// of the stored form.
type Dimension uint8

// The dimensions.
const (
	Kind Dimension = iota
	Country
	Referrer
	Browser
	System
	Device
	Trigger
	dimensions = iota
)

const (
	// Quarters is how many quarters of an hour a day has.
	Quarters = 96
	// MaxValues is how many values of a dimension are told apart within a day of a
	// scope, because clients choose their referrers. The first that come are kept; all
	// others count as Other.
	MaxValues = 200
	// MaxValue is the greatest length of a value in bytes.
	MaxValue = 255
	// Other stands for all values beyond MaxValues.
	Other = "(other)"
	// Person is the kind of clicks that count as people.
	Person = "person"

	maxCount = 1 << 53
	// maxFront bounds the two lengths of a busy day.
	maxFront = 1 << 24
)

// Counts are numbers of clicks: all of them, those of people, and those that are the
// first of their visitor on a day.
type Counts struct{ Clicks, People, Visitors int64 }

// Plus returns the sum of two counts.
func (n Counts) Plus(m Counts) Counts {
	return Counts{n.Clicks + m.Clicks, n.People + m.People, n.Visitors + m.Visitors}
}

// Minus returns the difference of two counts.
func (n Counts) Minus(m Counts) Counts {
	return Counts{n.Clicks - m.Clicks, n.People - m.People, n.Visitors - m.Visitors}
}

// covers reports whether m can be taken from n.
func (n Counts) covers(m Counts) bool {
	left := n.Minus(m)
	return left.Visitors >= 0 && left.People >= 0 && left.Clicks >= left.People
}

// Visit says where a click is counted: its quarter of an hour within the UTC day, and
// its value in each dimension. An empty value means that there is none.
type Visit struct {
	Quarter int
	Values  [dimensions]string
}

// Day holds the clicks of one scope and UTC day: for each dimension, value and quarter
// of an hour, how many they are. In every dimension they add up to the same. The zero
// Day is empty and ready. It is not safe for concurrent use.
type Day struct{ values [dimensions][]value }

// value is the cells of one value of a dimension. Values are in the order of their
// names, and cells in that of their quarters.
type value struct {
	name  string
	cells []cell
}

type cell struct {
	quarter uint8
	Counts
}

// Add counts clicks at one place.
func (d *Day) Add(v *Visit, n Counts) {
	for i := range d.values {
		addCell(d.place(Dimension(i), v.Values[i]), cell{uint8(v.Quarter), n})
	}
}

// Merge counts all clicks of another day.
func (d *Day) Merge(from *Day) {
	for i := range from.values {
		for _, v := range from.values[i] {
			to := d.place(Dimension(i), v.name)
			for _, c := range v.cells {
				addCell(to, c)
			}
		}
	}
}

// Subtract takes away all clicks of another day, which were counted before. It reports
// whether they were all there. If not, the day is wrong and has to be counted anew.
func (d *Day) Subtract(from *Day) bool {
	all := true
	for i := range from.values {
		for _, v := range from.values[i] {
			for _, c := range v.cells {
				all = d.take(Dimension(i), v.name, c) && all
			}
		}
		d.values[i] = slices.DeleteFunc(d.values[i], func(v value) bool { return len(v.cells) == 0 })
	}
	return all
}

// place returns the value to which clicks with this name are added.
func (d *Day) place(in Dimension, name string) *value {
	name = name[:min(len(name), MaxValue)]
	values := d.values[in]
	i, found := find(values, name)
	if found {
		return &values[i]
	}
	if name != Other && len(values) >= MaxValues {
		if _, other := find(values, Other); !other || len(values) > MaxValues {
			return d.place(in, Other)
		}
	}
	d.values[in] = slices.Insert(values, i, value{name: name})
	return &d.values[in][i]
}

func find(values []value, name string) (int, bool) {
	return slices.BinarySearchFunc(values, name, func(v value, name string) int { return strings.Compare(v.name, name) })
}

func addCell(to *value, c cell) {
	i, found := findCell(to.cells, c.quarter)
	if found {
		to.cells[i].Counts = to.cells[i].Plus(c.Counts)
		return
	}
	to.cells = slices.Insert(to.cells, i, c)
}

func findCell(cells []cell, quarter uint8) (int, bool) {
	return slices.BinarySearchFunc(cells, quarter, func(c cell, q uint8) int { return int(c.quarter) - int(q) })
}

// take takes clicks away from a value, or from Other if they were counted there.
func (d *Day) take(in Dimension, name string, c cell) bool {
	values := d.values[in]
	for _, name := range []string{name[:min(len(name), MaxValue)], Other} {
		i, found := find(values, name)
		if !found {
			continue
		}
		v := &values[i]
		j, found := findCell(v.cells, c.quarter)
		if !found || !v.cells[j].covers(c.Counts) {
			continue
		}
		if v.cells[j].Counts = v.cells[j].Minus(c.Counts); v.cells[j].Counts == (Counts{}) {
			v.cells = slices.Delete(v.cells, j, j+1)
		}
		return true
	}
	return false
}

// Totals returns the sum of all clicks.
func (d *Day) Totals() (sum Counts) {
	for _, v := range d.values[Kind] {
		sum = sum.Plus(v.sum())
	}
	return sum
}

// Empty reports whether the day has no clicks.
func (d *Day) Empty() bool { return d.Totals() == Counts{} }

func (v *value) sum() (sum Counts) {
	for _, c := range v.cells {
		sum = sum.Plus(c.Counts)
	}
	return sum
}

// The stored form of a day, in order:
//
//	1 byte  version of the form: quiet or busy
//	lengths of a busy day: uvarint bytes of kinds, uvarint bytes of sums
//	kinds   values with their cells
//	rest    the other dimensions, in order
//
// In a quiet day the rest is values with their cells, too. In a busy one, there are
// first all values with their sums, and then all cells, so that a whole day is read
// without its cells. The lengths tell whether the beginning of a day has all of that.
//
//	values  uvarint number, then each: name, (sum or cells)
//	name    uvarint: 2 × length, and the bytes; or 2 × index in common + 1
//	cells   uvarint number, then each: uvarint 4 × (quarter − the one before) + form,
//	        and for form 3 a sum
//	sum     uvarint clicks, clicks − people, visitors
//
// Forms 0 to 2 are for a single click: of a person and the first of a visitor, of a
// person, of a robot.
const (
	quietDay = 1
	busyDay  = 3
	// formerDay is a busy day of a release that did not know recent cells.
	formerDay = 2
	// busyCells is from how many cells on a day is busy.
	busyCells = 128

	formVisitor = 0
	formPerson  = 1
	formRobot   = 2
	formSum     = 3
)

// common are names that are stored as numbers. New ones are added at the end.
var common = [dimensions][]string{
	Kind:    {Person, "bot", "preview", "prefetch", "monitor", "tool", "empty"},
	Browser: {"Chrome", "Safari", "Firefox", "Edge", "Samsung Browser", "Opera", "Instagram App", "Facebook App", "curl", "Googlebot"},
	System:  {"Windows", "Android", "iOS", "macOS", "Linux", "ChromeOS"},
	Device:  {"mobile", "desktop", "tablet", "bot"},
	Trigger: {"link", "qr"},
}

var errCells = errors.New("malformed cells of statistics")

// Append adds the stored form of the day to b. Equal days have equal forms.
func (d *Day) Append(b []byte) []byte {
	busy := 0
	for _, values := range d.values[1:] {
		for _, v := range values {
			busy += len(v.cells)
		}
	}
	if busy < busyCells {
		b = append(b, quietDay)
		for i, values := range d.values {
			b = appendValues(b, Dimension(i), values, func(b []byte, v *value) []byte { return appendCells(b, v.cells) })
		}
		return b
	}
	kinds := appendValues(nil, Kind, d.values[Kind], func(b []byte, v *value) []byte { return appendCells(b, v.cells) })
	var sums []byte
	for i, values := range d.values[1:] {
		sums = appendValues(sums, Dimension(i+1), values, func(b []byte, v *value) []byte { return appendSum(b, v.sum()) })
	}
	b = append(b, busyDay)
	b = binary.AppendUvarint(b, uint64(len(kinds)))
	b = binary.AppendUvarint(b, uint64(len(sums)))
	b = append(b, kinds...)
	b = append(b, sums...)
	for _, values := range d.values[1:] {
		for _, v := range values {
			b = appendCells(b, v.cells)
		}
	}
	return b
}

func appendValues(b []byte, of Dimension, values []value, content func([]byte, *value) []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(values)))
	for i := range values {
		v := &values[i]
		if index := slices.Index(common[of], v.name); index >= 0 {
			b = binary.AppendUvarint(b, uint64(2*index+1))
		} else {
			b = binary.AppendUvarint(b, uint64(2*len(v.name)))
			b = append(b, v.name...)
		}
		b = content(b, v)
	}
	return b
}

func appendCells(b []byte, cells []cell) []byte {
	b = binary.AppendUvarint(b, uint64(len(cells)))
	before := uint8(0)
	for _, c := range cells {
		form := formOf(c.Counts)
		b = binary.AppendUvarint(b, uint64(c.quarter-before)<<2|form)
		if form == formSum {
			b = appendSum(b, c.Counts)
		}
		before = c.quarter
	}
	return b
}

func formOf(n Counts) uint64 {
	switch n {
	case Counts{1, 1, 1}:
		return formVisitor
	case Counts{1, 1, 0}:
		return formPerson
	case Counts{1, 0, 0}:
		return formRobot
	}
	return formSum
}

func appendSum(b []byte, n Counts) []byte {
	b = binary.AppendUvarint(b, uint64(n.Clicks))
	b = binary.AppendUvarint(b, uint64(n.Clicks-n.People))
	return binary.AppendUvarint(b, uint64(n.Visitors))
}

// DecodeDay reads the stored form of a day. Names share the memory of cells, which must
// not be changed as long as the day is in use. The error says that cells were not made
// by Append.
func DecodeDay(cells []byte) (*Day, error) {
	d := new(Day)
	err := Cells(cells, func(of Dimension, name string, quarter int, n Counts) {
		values := d.values[of]
		if len(values) == 0 || values[len(values)-1].name != name {
			values = append(values, value{name: name})
		}
		v := &values[len(values)-1]
		v.cells = append(v.cells, cell{uint8(quarter), n})
		d.values[of] = values
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Series calls each for every kind and quarter of an hour of a day that has clicks. It
// reads no more than a small part of cells.
func Series(cells []byte, each func(kind string, quarter int, n Counts)) error {
	r := newReader(cells)
	r.values(Kind, func(name string) {
		r.cells(func(quarter int, n Counts) { each(name, quarter, n) })
	})
	return r.err
}

// hasSeries and hasSums take the beginning of a busy day. They report whether it has all
// that Series and Sums read. For the beginning of a quiet day, they return false.
func hasSeries(front []byte) bool {
	r := newReader(front)
	return r.err == nil && r.busy && len(r.rest) >= r.kinds
}

func hasSums(front []byte) bool {
	r := newReader(front)
	return r.err == nil && r.busy && len(r.rest) >= r.kinds+r.sums
}

// Sums calls each for every value of a day, with all of its clicks. In a busy day, it
// does not read the cells, except those of kinds.
func Sums(cells []byte, each func(of Dimension, name string, n Counts)) error {
	r := newReader(cells)
	for of := range Dimension(dimensions) {
		r.values(of, func(name string) {
			var sum Counts
			if r.busy && of != Kind {
				sum = r.sum()
			} else {
				r.cells(func(_ int, n Counts) { sum = sum.Plus(n) })
			}
			each(of, name, sum)
		})
	}
	return r.err
}

// Cells calls each for every dimension, value and quarter of an hour of a day that has
// clicks.
func Cells(cells []byte, each func(of Dimension, name string, quarter int, n Counts)) error {
	r := newReader(cells)
	start := len(r.rest)
	var names [dimensions][]string
	for of := range Dimension(dimensions) {
		if r.busy && of == Country && start-len(r.rest) != r.kinds {
			r.fail()
		}
		r.values(of, func(name string) {
			if r.busy && of != Kind {
				r.sum()
				names[of] = append(names[of], name)
				return
			}
			r.cells(func(quarter int, n Counts) { each(of, name, quarter, n) })
		})
	}
	if r.busy && start-len(r.rest) != r.kinds+r.sums {
		r.fail()
	}
	for of, names := range names {
		for _, name := range names {
			r.cells(func(quarter int, n Counts) { each(Dimension(of), name, quarter, n) })
		}
	}
	if r.err == nil && len(r.rest) > 0 {
		return errCells
	}
	return r.err
}

// CellsOf is like Cells for one dimension. It does not read what is behind that.
func CellsOf(cells []byte, of Dimension, each func(name string, quarter int, n Counts)) error {
	r := newReader(cells)
	numbers := [dimensions]int{} // of values whose cells follow
	var names []string
	for d := range Dimension(dimensions) {
		if d > of && !r.busy {
			break
		}
		r.values(d, func(name string) {
			switch {
			case r.busy && d != Kind:
				r.sum()
				if numbers[d]++; d == of {
					names = append(names, name)
				}
			case d == of:
				r.cells(func(quarter int, n Counts) { each(name, quarter, n) })
			default:
				r.cells(func(int, Counts) {})
			}
		})
	}
	for d := range of {
		for range numbers[d] {
			r.cells(func(int, Counts) {})
		}
	}
	for _, name := range names {
		r.cells(func(quarter int, n Counts) { each(name, quarter, n) })
	}
	return r.err
}

// reader takes values off the front of rest. After the first that does not fit, err is
// set and all further ones are zero.
type reader struct {
	rest []byte
	busy bool
	// Of a busy day, how many bytes kinds and the sums of all other dimensions have.
	kinds, sums int
	err         error
}

func newReader(cells []byte) *reader {
	r := &reader{rest: cells}
	switch version := r.bytes(1); {
	case r.err != nil:
	case version[0] == busyDay, version[0] == formerDay:
		r.busy = true
		r.kinds, r.sums = int(r.number(maxFront)), int(r.number(maxFront))
	case version[0] != quietDay:
		r.err = fmt.Errorf("%w: unknown version %d", errCells, version[0])
	}
	return r
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = errCells
	}
	r.rest = nil
}

func (r *reader) bytes(n int) []byte {
	if r.err != nil || n > len(r.rest) {
		r.fail()
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// number reads a number up to limit.
func (r *reader) number(limit uint64) uint64 {
	if r.err == nil && len(r.rest) > 0 && r.rest[0] < 0x80 && uint64(r.rest[0]) <= limit {
		v := r.rest[0]
		r.rest = r.rest[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.rest)
	if r.err != nil || n <= 0 || v > limit {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// values reads the values of a dimension. content reads what follows each name.
func (r *reader) values(of Dimension, content func(name string)) {
	before := ""
	for i := range r.number(MaxValues + 1) {
		name := r.name(of)
		if i > 0 && name <= before {
			r.fail()
		}
		if r.err != nil {
			return
		}
		content(name)
		before = name
	}
}

func (r *reader) name(of Dimension) string {
	n := r.number(2*MaxValue + 1)
	if n%2 == 0 {
		b := r.bytes(int(n / 2))
		return unsafe.String(unsafe.SliceData(b), len(b))
	}
	if n/2 >= uint64(len(common[of])) {
		r.fail()
		return ""
	}
	return common[of][n/2]
}

func (r *reader) cells(each func(quarter int, n Counts)) {
	quarter := uint64(0)
	for i := range r.number(Quarters) {
		v := r.number(Quarters<<2 | formSum)
		if quarter += v >> 2; quarter >= Quarters || i > 0 && v>>2 == 0 {
			r.fail()
		}
		n := Counts{1, 1, 1}
		switch v & 3 {
		case formPerson:
			n.Visitors = 0
		case formRobot:
			n = Counts{Clicks: 1}
		case formSum:
			n = r.sum()
		}
		if r.err != nil {
			return
		}
		each(int(quarter), n)
	}
}

func (r *reader) sum() Counts {
	clicks := r.number(maxCount)
	return Counts{int64(clicks), int64(clicks - r.number(clicks)), int64(r.number(maxCount))}
}
