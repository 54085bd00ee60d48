package telemetry

import (
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// diskTimeout is how long a scrape waits for a file system that does not answer.
const diskTimeout = 500 * time.Millisecond

// disk asks for the size of a file system. If the file system hangs, scrapes are not
// held up and get the last answer, and only one goroutine hangs.
type disk struct {
	dir        string
	free, size *prometheus.Desc

	mu     sync.Mutex
	last   syscall.Statfs_t
	known  bool
	asking chan struct{} // closed once the file system has answered; nil while it is not being asked
}

// NewDiskMetrics returns, for a registry, metrics of the file system that holds dir:
// signpost_spool_disk_free_bytes, all of which the process may use, and
// signpost_spool_disk_size_bytes.
func NewDiskMetrics(dir string) prometheus.Collector {
	return &disk{
		dir: dir,
		free: prometheus.NewDesc("signpost_spool_disk_free_bytes",
			"Bytes that the process may still write to the file system of SPOOL_DIR.", nil, nil),
		size: prometheus.NewDesc("signpost_spool_disk_size_bytes",
			"Size of the file system of SPOOL_DIR.", nil, nil),
	}
}

// Describe implements [prometheus.Collector].
func (d *disk) Describe(ch chan<- *prometheus.Desc) {
	ch <- d.free
	ch <- d.size
}

// Collect implements [prometheus.Collector].
func (d *disk) Collect(ch chan<- prometheus.Metric) {
	select {
	case <-d.ask():
	case <-time.After(diskTimeout):
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.known {
		return
	}
	block := float64(d.last.Bsize)
	ch <- prometheus.MustNewConstMetric(d.free, prometheus.GaugeValue, block*float64(d.last.Bavail))
	ch <- prometheus.MustNewConstMetric(d.size, prometheus.GaugeValue, block*float64(d.last.Blocks))
}

// ask asks the file system, unless it is being asked already.
func (d *disk) ask() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asking != nil {
		return d.asking
	}
	done := make(chan struct{})
	d.asking = done
	go func() {
		var now syscall.Statfs_t
		err := syscall.Statfs(d.dir, &now)
		d.mu.Lock()
		defer d.mu.Unlock()
		if err == nil {
			d.last, d.known = now, true
		}
		d.asking = nil
		close(done)
	}()
	return done
}
