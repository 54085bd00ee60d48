package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Statistics are the clicks on a link, as GET /stats returns them.
type Statistics struct {
	Range struct {
		From     time.Time `json:"from"`
		To       time.Time `json:"to"`
		TZ       string    `json:"tz"`
		Interval string    `json:"interval"`
	} `json:"range"`
	Totals   Counts  `json:"totals"`
	Previous *Counts `json:"previous"`
	Series   []struct {
		Start time.Time `json:"start"`
		Counts
	} `json:"series"`
	// Breakdowns has the most frequent values of each dimension that was asked for.
	Breakdowns map[string][]struct {
		Value string `json:"value"`
		Counts
		Share float64 `json:"share"`
	} `json:"breakdowns"`
	AsOf    time.Time `json:"as_of"`
	Pending int64     `json:"pending"`
}

// Counts are numbers of clicks.
type Counts struct {
	Clicks   int64 `json:"clicks"`
	People   int64 `json:"people"`
	Robots   int64 `json:"robots"`
	Visitors int64 `json:"visitors"`
}

// LinkStatistics returns the statistics of the link with a short code on the domain with
// a host; "" is the main domain. If there is no such link and the code is a number, it
// is taken for the id of a link. query has further parameters, such as range.
func (c *Client) LinkStatistics(ctx context.Context, host, code string, query url.Values) (Statistics, error) {
	all := url.Values{"short_code": {code}}
	for name, values := range query {
		all[name] = values
	}
	if host != "" {
		all.Set("domain", host)
	}
	var st Statistics
	err := c.get(ctx, "/stats?"+all.Encode(), &st)
	if id, numeric := strconv.ParseInt(code, 10, 64); numeric == nil && host == "" && Status(err) == http.StatusNotFound {
		err = c.get(ctx, "/urls/"+strconv.FormatInt(id, 10)+"/stats?"+query.Encode(), &st)
	}
	return st, err
}
