// Package drive is for programs that drive Signpost's processes from outside (abuse,
// bench, torture, chaos). It builds and starts processes, sends them load, keeps the
// account of clicks, waits until the pipeline is empty, and reads metrics and the use
// of memory and processors.
package drive

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// direct connects to the process itself, even if the environment names a proxy.
var direct = &http.Client{Transport: &http.Transport{}}

// FreeAddr returns an address of 127.0.0.1 with a port on which nobody listens at this
// moment.
func FreeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// Metric returns a metric of the process whose admin listener is on addr. It is the sum
// of the metric's samples, whatever their labels. It is an error if there are no
// samples.
func Metric(ctx context.Context, addr, name string) (float64, error) {
	samples, err := Samples(ctx, addr, name)
	if err != nil {
		return 0, err
	}
	if len(samples) == 0 {
		return 0, fmt.Errorf("no metric %s on %s", name, addr)
	}
	var sum float64
	for _, value := range samples {
		sum += value
	}
	return sum, nil
}

// Samples returns the samples of a metric. The key of each is its labels as they are
// written, such as `{reason="stuck"}`, or "" without labels.
func Samples(ctx context.Context, addr, name string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("ask for metrics: %w", err)
	}
	resp, err := direct.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for metrics: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for metrics: %s answered %s", addr, resp.Status)
	}
	samples := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue // another metric whose name begins with this one
		}
		at := strings.LastIndexByte(rest, ' ')
		value, err := strconv.ParseFloat(rest[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("read metric %s: %w", name, err)
		}
		samples[rest[:at]] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return samples, nil
}
