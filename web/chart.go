package web

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/service"
)

// The size of a chart in its own units. The picture is stretched to the space that the
// page gives it; so texts stand beside it, in HTML.
const chartWidth, chartHeight = 1000, 200

// line is one line of a chart.
type line struct {
	name   string
	class  string // people, before or robots
	dashed bool
	filled bool // down to zero
	values []int64
}

// drawing is a chart without its texts.
type drawing struct {
	title, desc string
	lines       []line
}

// svg draws the lines over a scale from 0 to top with marks. All coordinates are within the picture.
func (d drawing) svg(top int64, marks []int64) template.HTML {
	var b strings.Builder
	places := 0
	for _, l := range d.lines {
		places = max(places, len(l.values))
	}
	fmt.Fprintf(&b, `<svg class="lines" viewBox="0 0 %d %d" preserveAspectRatio="none" role="img" aria-label="%s"><title>%[3]s</title><desc>%[4]s</desc>`,
		chartWidth, chartHeight, html.EscapeString(d.title), html.EscapeString(d.desc))
	for _, mark := range marks {
		fmt.Fprintf(&b, `<path class="grid" d="M0 %sH%d" stroke="currentColor" vector-effect="non-scaling-stroke"/>`, coordinate(mark, top), chartWidth)
	}
	for _, l := range d.lines {
		path := tracePath(l.values, places, top)
		if path == "" {
			continue
		}
		if l.filled {
			fmt.Fprintf(&b, `<path class="%s area" d="%sV%dH0Z" stroke="none" fill="currentColor"/>`, l.class, path, chartHeight)
		}
		dashes := ""
		if l.dashed {
			dashes = ` stroke-dasharray="5 5"`
		}
		fmt.Fprintf(&b, `<path class="%s" d="%s" fill="none" stroke="currentColor" vector-effect="non-scaling-stroke"%s/>`, l.class, path, dashes)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // texts are escaped, all else are numbers and our own words
}

// tracePath returns the path of a line over a number of places, "" without values. It
// begins at the left edge, and ends before the right one if it has fewer values. If there
// is only one place, it is a level line.
func tracePath(values []int64, places int, top int64) string {
	if len(values) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("M0 " + coordinate(values[0], top))
	if places == 1 {
		b.WriteString("H" + strconv.Itoa(chartWidth))
	}
	for i := 1; i < min(len(values), places); i++ {
		x := float64(chartWidth) * float64(i) / float64(places-1)
		b.WriteString("L" + decimal(x) + " " + coordinate(values[i], top))
	}
	return b.String()
}

// coordinate returns the height of a value in the picture, from above.
func coordinate(value, top int64) string {
	part := 0.0
	if top > 0 {
		part = min(max(float64(value)/float64(top), 0), 1)
	}
	return decimal(chartHeight * (1 - part))
}

func decimal(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// maxMark bounds a scale, so that no sum overflows. Higher values stand at its top.
const maxMark = 1_000_000_000_000_000

// scale returns the top of a scale for values up to most, and the values at its lines,
// the top first. They are whole and round numbers.
func scale(most int64) (top int64, marks []int64) {
	step := int64(1)
	most = min(most, maxMark)
	if most > 4 {
		power := math.Pow10(int(math.Floor(math.Log10(float64(most) / 4))))
		for _, digit := range []float64{1, 2, 5, 10, 20} {
			if step = int64(digit * power); 4*step >= most && step > 0 {
				break
			}
		}
	}
	count := max((most+step-1)/step, 1)
	for i := count; i >= 0; i-- {
		marks = append(marks, i*step)
	}
	return count * step, marks
}

// chart is the clicks over time with all that the page shows of them.
type chart struct {
	SVG      template.HTML
	Marks    []int64  // at the left, the top first
	Dates    []string // below, the first at the left edge and the last at the right
	Rows     []chartRow
	Compared bool
	Empty    bool // there is no click in it
}

// chartRow is a row of the table behind a chart.
type chartRow struct {
	When   string
	Now    service.Counts
	Before *int64 // people at that time of the range before; nil if there was none
}

// maxDates is how many dates stand below a chart.
const maxDates = 5

// newChart makes the chart of a series and, if it is not nil, the one before.
func newChart(of string, st service.Statistics, before []service.Bucket) chart {
	var people, robots, earlier []int64
	c := chart{Compared: before != nil, Empty: st.Totals.Clicks == 0}
	most := int64(0)
	for i, bucket := range st.Series {
		row := chartRow{When: bucketName(bucket.Start, st.Range.Interval), Now: bucket.Counts}
		people, robots = append(people, bucket.People), append(robots, bucket.Robots)
		most = max(most, bucket.People, bucket.Robots)
		if i < len(before) { // a month before may be shorter, or longer
			row.Before = &before[i].People
			earlier = append(earlier, before[i].People)
			most = max(most, before[i].People)
		}
		c.Rows = append(c.Rows, row)
	}
	var top int64
	top, c.Marks = scale(most)
	lines := []line{{"before", "before", true, false, earlier}, {"robots", "robots", false, false, robots}, {"people", "people", false, true, people}}
	c.SVG = drawing{
		title: "Clicks on " + of,
		desc: fmt.Sprintf("%d clicks of people and %d of robots from %s to %s.", st.Totals.People, st.Totals.Robots,
			st.Range.From.Format("2 January 2006"), st.Range.To.Format("2 January 2006")),
		lines: lines,
	}.svg(top, c.Marks)
	for i := range min(maxDates, len(c.Rows)) {
		at := 0
		if n := min(maxDates, len(c.Rows)); n > 1 {
			at = i * (len(c.Rows) - 1) / (n - 1)
		}
		c.Dates = append(c.Dates, bucketDate(st.Series[at].Start, st.Range))
	}
	return c
}

// bucketName names a bucket in the table.
func bucketName(start time.Time, interval string) string {
	switch interval {
	case "15m", "hour":
		return start.Format("Mon 2 Jan, 15:04")
	case "week":
		return "week of " + start.Format("2 Jan 2006")
	case "month":
		return start.Format("January 2006")
	}
	return start.Format("Mon 2 Jan 2006")
}

// bucketDate names a bucket below the chart, where there is little room.
func bucketDate(start time.Time, r service.StatisticsRange) string {
	switch {
	case r.To.Sub(r.From) <= 36*time.Hour:
		return start.Format("15:04")
	case r.Interval == "month":
		return start.Format("Jan 06")
	}
	return start.Format("2 Jan")
}
