package telemetry

import (
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// diskTimeout is what a scrape waits for a file system that does not answer.
const diskTimeout = 500 * time.Millisecond

// disk tells the size of a file system. One that hangs holds up neither the
// scrape, which then gets the last answer, nor more than one goroutine.
type disk struct {
	dir        string
	free, size *prometheus.Desc

	mu     sync.Mutex
	last   syscall.Statfs_t
	known  bool
	asking chan struct{} // closed once the file system has answered; nil when it is not asked
}

// NewDiskMetrics returns metrics of the file system that holds dir, for a
// registry: signpost_spool_disk_free_bytes, of which the process may use all,
// and signpost_spool_disk_size_bytes.
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

// ask asks the file system unless that is under way.
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
