package csvimport

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func keysOf(t *testing.T, kind Kind, columns, fields string) []uint64 {
	t.Helper()
	names := strings.Split(columns, ",")
	layout := Layout{Kind: kind, Format: FormatSignpost, Columns: names, Header: names, Lenient: true}
	var keys []uint64
	for record := range layout.Records([]byte(fields), 2) {
		keys = layout.KeysOf(record, keys)
	}
	return keys
}

func TestKeysOf(t *testing.T) {
	t.Parallel()
	const users = "id,username,email"
	all := keysOf(t, KindUsers, users, "1,ann,ann@example.com\n")
	if len(all) != 3 {
		t.Fatalf("a user claims %d keys, want 3", len(all))
	}
	for name, test := range map[string]struct {
		fields string
		same   []int // which of the keys of all are claimed
		count  int
	}{
		"same":               {"1,ann,ann@example.com", []int{0, 1, 2}, 3},
		"spelled otherwise":  {" 01 ,'ANN,Ann@EXAMPLE.com", []int{0, 2}, 3},
		"case":               {"2,Ann,x@example.com", []int{1}, 3},
		"id of a float":      {"1.0,x,x@example.com", []int{0}, 3},
		"quoted":             {`2,"ann",x@example.com`, []int{1}, 3},
		"columns kept apart": {"2,ann@example.com,ann", nil, 3},
		"malformed id":       {"one,bob,bob@example.com", nil, 2},
		"empty":              {",,", nil, 0},
		"broken":             {"1,ann,ann@example.com,surplus", nil, 0},
		"short":              {"1,ann", []int{0, 1}, 2},
	} {
		got := keysOf(t, KindUsers, users, test.fields)
		if len(got) != test.count {
			t.Errorf("%s: %d keys, want %d", name, len(got), test.count)
		}
		for i, key := range all {
			if slices.Contains(got, key) != slices.Contains(test.same, i) {
				t.Errorf("%s: key %d is claimed: %v", name, i, slices.Contains(got, key))
			}
		}
	}
	// What an export neutralized is what it was before.
	if a, b := keysOf(t, KindUsers, users, ",'=ann,"), keysOf(t, KindUsers, users, ",=ANN,"); !slices.Equal(a, b) {
		t.Errorf("keys %x of '=ann, %x of =ANN", a, b)
	}
	links := keysOf(t, KindLinks, "id,short_code,original_url", "1,abc,u\n1,ABC,u\n2,,u\n")
	if len(links) != 5 || links[0] != links[2] || links[1] == links[3] || links[0] == all[0] {
		t.Errorf("keys of links %x: ids are the same, codes differ in case", links)
	}
	events := keysOf(t, KindEvents, "id,url_id,event_type,timestamp", "5,1,clicked,2025-01-01\n5,2,clicked,2025-01-02\n,2,clicked,2025-01-02\n")
	if len(events) != 2 || events[0] != events[1] {
		t.Errorf("keys of events %x, want one twice", events)
	}
}

// Keys are stored by one release and compared by the next.
func TestKeysStay(t *testing.T) {
	t.Parallel()
	got := keysOf(t, KindUsers, "id,username,email", "1,ann,Ännchen@example.com\n")
	if want := []uint64{0x9935f5bb6a5aff27, 0x51b20a50a8f339cf, 0x7b85c750253e4455}; !slices.Equal(got, want) {
		t.Errorf("keys %#x, want %#x", got, want)
	}
}

// TestFolding holds the keys of names to every mapping of case that a
// database's lower() may have.
func TestFolding(t *testing.T) {
	t.Parallel()
	same := func(a, b string) {
		t.Helper()
		if hashFolded(domainUsername, a) != hashFolded(domainUsername, b) {
			t.Errorf("%q and %q have different keys", a, b)
		}
	}
	for r := rune(1); r < 0x1ffff; r++ {
		if !unicode.IsLetter(r) {
			continue
		}
		s := "x" + string(r)
		same(s, strings.ToLower(s))
		same(s, strings.ToLowerSpecial(unicode.TurkishCase, s))
	}
	same("ÀÉ", "àé")
	same("e\u0301", "é")
	same("ΣΊΣΥΦΟΣ", "σίσυφος")
	same("İI", "ıi")
	same("ẞ", "ß")
	if hashFolded(domainUsername, "ann") == hashFolded(domainUsername, "anna") {
		t.Error("ann and anna have the same key")
	}
}

func TestEncodeKeys(t *testing.T) {
	t.Parallel()
	keys := []uint64{0, 1, 1 << 63, ^uint64(0)}
	got, err := DecodeKeys([]uint64{7}, EncodeKeys(keys))
	if err != nil || !slices.Equal(got, append([]uint64{7}, keys...)) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := DecodeKeys(nil, make([]byte, 9)); err == nil {
		t.Error("DecodeKeys takes 9 bytes")
	}
}

func TestContended(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() uint64{
		"spread":       func() uint64 { return random.Uint64N(150_000) * 0x9e3779b97f4a7c15 },
		"all the same": func() uint64 { return 42 },
		"few":          func() uint64 { return random.Uint64N(100) },
		"low":          func() uint64 { return random.Uint64N(40_000) },
		"high":         func() uint64 { return ^uint64(0) - random.Uint64N(40_000) },
		"all distinct": func() func() uint64 { n := uint64(0); return func() uint64 { n++; return mix(n) } }(),
	} {
		lists := make([][]uint64, 40)
		count := map[uint64]int{}
		for i := range lists {
			for range 1500 {
				key := draw()
				lists[i] = append(lists[i], key)
				count[key]++
			}
			slices.Sort(lists[i])
		}
		want := []uint64{}
		for key, n := range count {
			if n > 1 {
				want = append(want, key)
			}
		}
		slices.Sort(want)
		// 8,192 keys fit into the least memory, all of them into the most.
		for _, memory := range []int{0, 200_000, 8 << 20} {
			got, ranges := []uint64{}, 0
			for found, err := range Contended(listsOf(lists), 0, memory) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, found.Keys...)
				ranges++
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s in %d bytes: %d keys, want %d", name, memory, len(got), len(want))
			}
			if resumed := inSteps(t, lists, memory, ranges); !slices.Equal(resumed, want) {
				t.Errorf("%s in %d bytes, resumed: %d keys, want %d", name, memory, len(resumed), len(want))
			}
		}
	}
}

// inSteps walks the lists anew for each range.
func inSteps(t *testing.T, lists [][]uint64, memory, ranges int) []uint64 {
	t.Helper()
	got := []uint64{}
	for from, step := uint64(0), 1; ; step++ {
		for found, err := range Contended(listsOf(lists), from, memory) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, found.Keys...)
			from = found.Next
			break
		}
		if from == 0 || step > ranges {
			if step != ranges {
				t.Errorf("%d steps, want the %d of one walk", step, ranges)
			}
			return got
		}
	}
}

func TestContendedStops(t *testing.T) {
	t.Parallel()
	gone := errors.New("connection lost")
	var errs []error
	for found, err := range Contended(func(func([]uint64) error) error { return gone }, 0, 0) {
		errs = append(errs, err)
		if found.Keys != nil {
			t.Errorf("keys %v with an error", found.Keys)
		}
	}
	if len(errs) != 1 || !errors.Is(errs[0], gone) {
		t.Errorf("errors %v, want %v once", errs, gone)
	}
	passes := 0
	keys := make([]uint64, 0, 60_000)
	for i := range uint64(30_000) {
		keys = append(keys, i, i)
	}
	lists := func(yield func([]uint64) error) error { passes++; return yield(keys) }
	for _, err := range Contended(lists, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if passes != 1 {
		t.Errorf("%d passes after the caller stopped, want 1", passes)
	}
	for found, err := range Contended(func(func([]uint64) error) error { return nil }, 0, 0) {
		if len(found.Keys) > 0 || found.Next != 0 || err != nil {
			t.Errorf("%v, %v of nothing", found, err)
		}
	}
}
