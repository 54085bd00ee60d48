package rollup

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// randomVisits returns clicks at a few places or at many, with as many values in each
// dimension as within allows.
func randomVisits(r *rand.Rand, n, within int) []Visit {
	visits := make([]Visit, n)
	for i := range visits {
		v := &visits[i]
		v.Quarter = r.IntN(1 + r.IntN(Quarters))
		for d := range v.Values {
			if r.IntN(8) > 0 {
				v.Values[d] = fmt.Sprintf("value %d", r.IntN(within))
			}
		}
		v.Values[Kind] = common[Kind][r.IntN(7)]
		v.Values[Device] = common[Device][r.IntN(4)]
	}
	return visits
}

func countsOf(v *Visit, r *rand.Rand) Counts {
	if v.Values[Kind] != Person {
		return Counts{Clicks: 1}
	}
	return Counts{1, 1, r.Int64N(2)}
}

func dayOf(visits []Visit, counts []Counts) *Day {
	d := new(Day)
	for i := range visits {
		d.Add(&visits[i], counts[i])
	}
	return d
}

func encoded(d *Day) string { return string(d.Append(nil)) }

// each runs a test with many random lists of clicks.
func each(t *testing.T, within int, test func(t *testing.T, r *rand.Rand, visits []Visit, counts []Counts)) {
	t.Helper()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		visits := randomVisits(r, r.IntN(1+int(seed)), within)
		counts := make([]Counts, len(visits))
		for i := range visits {
			counts[i] = countsOf(&visits[i], r)
		}
		test(t, r, visits, counts)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestAddingIsInAnyOrder(t *testing.T) {
	t.Parallel()
	each(t, 50, func(t *testing.T, r *rand.Rand, visits []Visit, counts []Counts) {
		t.Helper()
		whole := encoded(dayOf(visits, counts))
		a, b := r.IntN(len(visits)+1), r.IntN(len(visits)+1)
		a, b = min(a, b), max(a, b)
		first, second, third := dayOf(visits[:a], counts[:a]), dayOf(visits[a:b], counts[a:b]), dayOf(visits[b:], counts[b:])
		sum := new(Day)
		sum.Merge(third)
		sum.Merge(first)
		sum.Merge(second)
		assert.Equal(t, whole, encoded(sum), "commutative")
		second.Merge(third)
		first.Merge(second)
		assert.Equal(t, whole, encoded(first), "associative")
	})
}

func TestTakingAwayUndoesAdding(t *testing.T) {
	t.Parallel()
	each(t, 50, func(t *testing.T, r *rand.Rand, visits []Visit, counts []Counts) {
		t.Helper()
		n := r.IntN(len(visits) + 1)
		d, more := dayOf(visits[:n], counts[:n]), dayOf(visits[n:], counts[n:])
		before := encoded(d)
		d.Merge(more)
		assert.True(t, d.Subtract(more), "everything was there")
		assert.Equal(t, before, encoded(d))
	})
}

// Beyond the greatest number of values it depends on the order of the clicks which of
// them are told apart. The sums do not.
func TestManyValues(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	visits := randomVisits(r, 3000, 1000)
	counts := make([]Counts, len(visits))
	for i := range visits {
		counts[i] = countsOf(&visits[i], r)
	}
	d := dayOf(visits, counts)
	values := map[string]bool{}
	require.NoError(t, Sums(d.Append(nil), func(of Dimension, name string, _ Counts) {
		if of == Referrer {
			values[name] = true
		}
	}))
	assert.Len(t, values, MaxValues+1)
	assert.True(t, values[Other], "the rest is counted as other")
	checkSums(t, d, visits, counts)
	for i := range visits {
		single := dayOf(visits[i:i+1], counts[i:i+1])
		require.True(t, d.Subtract(single), "click %d was counted", i)
	}
	assert.True(t, d.Empty())
	assert.Equal(t, encoded(new(Day)), encoded(d))
}

func TestTooMuchIsTakenAway(t *testing.T) {
	t.Parallel()
	visits := randomVisits(rand.New(rand.NewPCG(1, 3)), 2, 50)
	visits[0].Values[Kind], visits[1].Values[Kind] = "bot", "bot"
	d, counts := new(Day), []Counts{{Clicks: 1}, {Clicks: 1}}
	d.Merge(dayOf(visits[:1], counts[:1]))
	assert.False(t, d.Subtract(dayOf(visits, counts)), "the second was not counted")
	assert.Equal(t, Counts{}, d.Totals(), "the first is gone all the same")
}

func TestSumsAreTheSameEverywhere(t *testing.T) {
	t.Parallel()
	each(t, 300, func(t *testing.T, _ *rand.Rand, visits []Visit, counts []Counts) {
		t.Helper()
		d := dayOf(visits, counts)
		checkSums(t, d, visits, counts)
		again, err := DecodeDay(d.Append(nil))
		require.NoError(t, err)
		assert.Equal(t, encoded(d), encoded(again), "decoding and encoding")
	})
}

// checkSums compares everything that can be read of a day with its clicks.
func checkSums(t *testing.T, d *Day, visits []Visit, counts []Counts) {
	t.Helper()
	type place struct {
		of      Dimension
		quarter int
	}
	var total Counts
	series, kinds := map[int]Counts{}, map[string]Counts{}
	for i := range visits {
		v := &visits[i]
		total = total.Plus(counts[i])
		series[v.Quarter] = series[v.Quarter].Plus(counts[i])
		kinds[v.Values[Kind]] = kinds[v.Values[Kind]].Plus(counts[i])
	}
	assert.Equal(t, total, d.Totals())
	stored := d.Append(nil)

	got := map[int]Counts{}
	require.NoError(t, Series(stored, func(kind string, quarter int, n Counts) {
		got[quarter] = got[quarter].Plus(n)
		assert.Equal(t, kind == Person, n.People == n.Clicks, "people are clicks of persons")
	}))
	assert.Equal(t, series, got)

	sums, byValue := map[Dimension]Counts{}, map[Dimension]map[string]Counts{}
	require.NoError(t, Sums(stored, func(of Dimension, name string, n Counts) {
		sums[of] = sums[of].Plus(n)
		if byValue[of] == nil {
			byValue[of] = map[string]Counts{}
		}
		byValue[of][name] = n
	}))
	places, values := map[place]Counts{}, map[Dimension]map[string]Counts{}
	require.NoError(t, Cells(stored, func(of Dimension, name string, quarter int, n Counts) {
		places[place{of, quarter}] = places[place{of, quarter}].Plus(n)
		if values[of] == nil {
			values[of] = map[string]Counts{}
		}
		values[of][name] = values[of][name].Plus(n)
	}))
	assert.Equal(t, byValue, values, "sums are those of the cells")
	for of := range Dimension(dimensions) {
		assert.Equal(t, total, sums[of], "dimension %d adds up", of)
		for quarter := range maps.Keys(series) {
			assert.Equal(t, series[quarter], places[place{of, quarter}], "dimension %d adds up in quarter %d", of, quarter)
		}
	}
	if len(visits) > 0 {
		assert.Equal(t, kinds, byValue[Kind])
	}
}

func TestSizeOfCells(t *testing.T) {
	t.Parallel()
	v := Visit{Quarter: 40, Values: [dimensions]string{Person, "DE", "news.example.org", "Chrome", "Windows", "desktop", "link"}}
	d := new(Day)
	d.Add(&v, Counts{1, 1, 1})
	if n := len(d.Append(nil)); n > 60 {
		t.Errorf("a day with one click takes %d bytes", n)
	}
}

func FuzzCells(f *testing.F) {
	for _, n := range []int{0, 1, 20, 500} {
		r := rand.New(rand.NewPCG(uint64(n), 4))
		visits := randomVisits(r, n, 300)
		f.Add(dayOf(visits, slices.Repeat([]Counts{{Clicks: 1}}, n)).Append(nil))
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		d, err := DecodeDay(stored)
		if err != nil {
			require.ErrorIs(t, err, errCells)
			return
		}
		again, err := DecodeDay(d.Append(nil))
		require.NoError(t, err)
		assert.Equal(t, encoded(d), encoded(again))
		assert.NoError(t, Series(stored, func(string, int, Counts) {}))
		assert.NoError(t, Sums(stored, func(Dimension, string, Counts) {}))
	})
}

// BenchmarkYear reads a year of a link with two million clicks.
func BenchmarkYear(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 5))
	days, clicks := make([][]byte, 365), 0
	zipf := rand.NewZipf(r, 1.2, 1, 400)
	for i := range days {
		d := new(Day)
		for range 2_000_000 / len(days) {
			v := Visit{Quarter: r.IntN(Quarters), Values: [dimensions]string{
				Person, "", fmt.Sprintf("referrer%d.example.org", zipf.Uint64()),
				common[Browser][r.IntN(8)], common[System][r.IntN(6)], common[Device][r.IntN(3)], "link",
			}}
			v.Values[Country] = fmt.Sprintf("C%d", r.IntN(60))
			if r.IntN(6) == 0 {
				v.Values[Kind] = "bot"
			}
			d.Add(&v, countsOf(&v, r))
			clicks++
		}
		days[i] = d.Append(nil)
	}
	size := 0
	for _, d := range days {
		size += len(d)
	}
	read := map[string]func([]byte) error{
		"series": func(d []byte) error { return Series(d, func(string, int, Counts) {}) },
		"sums":   func(d []byte) error { return Sums(d, func(Dimension, string, Counts) {}) },
		"cells":  func(d []byte) error { return Cells(d, func(Dimension, string, int, Counts) {}) },
	}
	for _, name := range slices.Sorted(maps.Keys(read)) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for _, d := range days {
					require.NoError(b, read[name](d))
				}
			}
			b.ReportMetric(float64(size)/float64(clicks), "bytes/click")
		})
	}
}
