package web

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/signpost/signpost/internal/service"
)

var (
	pathNumber = regexp.MustCompile(`-?[0-9.]+`)
	pathPoint  = regexp.MustCompile(`([MLHV])(-?[0-9.]+)(?: (-?[0-9.]+))?`)
)

// Whatever the values, a chart is sound XML without styles, and all in its picture.
func TestChartsStayInTheirPicture(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, 10), rapid.Int64Range(0, math.MaxInt64)), 0, 50)
		d := drawing{title: rapid.StringMatching(`[ -~äß€]*`).Draw(t, "title"), desc: rapid.StringMatching(`[ -~äß€]*`).Draw(t, "desc")}
		most := int64(0)
		for _, class := range []string{"before", "robots", "people"} {
			l := line{name: class, class: class, dashed: class == "before", filled: class == "people", values: values.Draw(t, class)}
			for _, v := range l.values {
				most = max(most, v)
			}
			d.lines = append(d.lines, l)
		}
		top, marks := scale(most)
		checkMarks(t, most, top, marks)
		checkPicture(t, string(d.svg(top, marks)))
	})
}

func checkMarks(t *rapid.T, most, top int64, marks []int64) {
	assert.GreaterOrEqual(t, top, min(most, maxMark))
	require.NotEmpty(t, marks)
	assert.LessOrEqual(t, len(marks), 5)
	assert.Equal(t, top, marks[0])
	assert.Zero(t, marks[len(marks)-1])
	for i := 1; i < len(marks); i++ {
		assert.Equal(t, marks[0]-marks[1], marks[i-1]-marks[i], "marks stand at equal distances")
	}
}

func checkPicture(t *rapid.T, svg string) {
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		element, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range element.Attr {
			assert.NotEqual(t, "style", a.Name.Local)
			assert.False(t, strings.HasPrefix(a.Name.Local, "on"))
			if a.Name.Local == "d" {
				checkPath(t, a.Value)
			}
		}
	}
}

func checkPath(t *rapid.T, path string) {
	assert.NotContains(t, path, "N")
	assert.Equal(t, len(pathNumber.FindAllString(path, -1)), countNumbers(path), path)
	for _, p := range pathPoint.FindAllStringSubmatch(path, -1) {
		first, err := strconv.ParseFloat(p[2], 64)
		require.NoError(t, err, path)
		x, y := first, 0.0
		switch {
		case p[1] == "V":
			x, y = 0, first
		case p[3] != "":
			y, err = strconv.ParseFloat(p[3], 64)
			require.NoError(t, err, path)
		}
		assert.True(t, 0 <= x && x <= chartWidth && 0 <= y && y <= chartHeight, path)
	}
}

// countNumbers counts the numbers that the points of a path have.
func countNumbers(path string) (n int) {
	for _, p := range pathPoint.FindAllStringSubmatch(path, -1) {
		if n++; p[3] != "" {
			n++
		}
	}
	return n
}

func TestScale(t *testing.T) {
	t.Parallel()
	for most, want := range map[int64][]int64{
		0: {1, 0}, 1: {1, 0}, 3: {3, 2, 1, 0}, 4: {4, 3, 2, 1, 0}, 5: {6, 4, 2, 0}, 9: {10, 5, 0}, 101: {150, 100, 50, 0}, 1000: {1000, 500, 0}, 1001: {1500, 1000, 500, 0},
	} {
		_, marks := scale(most)
		assert.Equal(t, want, marks, most)
	}
}

func TestOneBucketIsALevelLine(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "M0 100H1000", tracePath([]int64{5}, 1, 10))
	assert.Equal(t, "M0 200L1000 0", tracePath([]int64{0, 10}, 2, 10))
	assert.Equal(t, "M0 0L500 200", tracePath([]int64{10, 0}, 3, 10), "a shorter time before")
	assert.Empty(t, tracePath(nil, 3, 10))
}

// The table behind a chart has every bucket, and what was in the time before where there
// was any.
func TestTableBehindAChart(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	st := service.Statistics{Range: service.StatisticsRange{From: day, To: day.AddDate(0, 0, 3), Interval: "day"}}
	for i := range 3 {
		n := service.Counts{Clicks: int64(3 * i), People: int64(2 * i), Robots: int64(i)}
		st.Series = append(st.Series, service.Bucket{Start: day.AddDate(0, 0, i), Counts: n})
		st.Totals.Clicks += n.Clicks
	}
	c := newChart("x", st, st.Series[:2])
	require.Len(t, c.Rows, 3)
	assert.Equal(t, "Tue 3 Feb 2026", c.Rows[2].When)
	assert.Equal(t, int64(4), c.Rows[2].Now.People)
	assert.Equal(t, int64(2), *c.Rows[1].Before)
	assert.Nil(t, c.Rows[2].Before)
	assert.Equal(t, []string{"1 Feb", "2 Feb", "3 Feb"}, c.Dates)
	assert.False(t, c.Empty)
	assert.Contains(t, string(c.SVG), "stroke-dasharray")
}
