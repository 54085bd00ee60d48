package api

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// uploadPlaces are those of the uploads that this process receives at once.
// Each holds a piece of its file, and what unpacking takes, in memory (I7). May
// be used concurrently.
type uploadPlaces struct {
	most   int
	active prometheus.Gauge

	mu    sync.Mutex
	taken int
	keys  map[onceKey]struct{} // that the database does not know yet
}

func newUploadPlaces(most int, active prometheus.Gauge) *uploadPlaces {
	return &uploadPlaces{most: most, active: active, keys: map[onceKey]struct{}{}}
}

// uploadPlace is that of one upload, which leaves it once. Not to be used
// concurrently.
type uploadPlace struct {
	all *uploadPlaces
	key *onceKey // while it is in all.keys
}

// enter takes a place. Until the first chunk of a file has arrived and its key
// is in the database, only this knows that the key is under way: others that
// come with it must not take places, nor be told that there is none.
func (p *uploadPlaces) enter(once *onceRequest) (*uploadPlace, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	place := &uploadPlace{all: p}
	if once != nil {
		place.key = &once.onceKey
		if _, busy := p.keys[*place.key]; busy {
			return nil, errKeyBusy
		}
	}
	if p.taken == p.most {
		return nil, errUploads
	}
	if place.key != nil {
		p.keys[*place.key] = struct{}{}
	}
	p.taken++
	p.active.Inc()
	return place, nil
}

// claimed says that the upload's key is in the database, which decides from then
// on whether it is under way.
func (p *uploadPlace) claimed() {
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	p.forgetKey()
}

func (p *uploadPlace) leave() {
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	p.forgetKey()
	p.all.taken--
	p.all.active.Dec()
}

// forgetKey needs the lock.
func (p *uploadPlace) forgetKey() {
	if p.key != nil {
		delete(p.all.keys, *p.key)
		p.key = nil
	}
}
