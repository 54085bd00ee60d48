package api

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost/signpost/internal/service"
)

// uploadPlaces are those of the uploads that this process receives at once.
// Each holds a piece of its file, and what unpacking takes, in memory (I7). May
// be used concurrently.
type uploadPlaces struct {
	// first are the places of files that are going to be stored, again those of
	// files that are only read to see that they came before.
	first, again *shares

	mu   sync.Mutex
	keys map[service.OnceKey]struct{} // that the database does not know yet
}

func newUploadPlaces(most int, first, again prometheus.Gauge) *uploadPlaces {
	return &uploadPlaces{
		first: newShares(int64(most), first, errUploads, errUploadsHalf),
		again: newShares(int64(most), again, errUploads, errUploadsHalf),
		keys:  map[service.OnceKey]struct{}{},
	}
}

// uploadPlace is that of one upload, which leaves it once. Not to be used
// concurrently.
type uploadPlace struct {
	all  *uploadPlaces
	key  *service.OnceKey // while it is in all.keys
	give func()
}

// enter takes a place. Until the first chunk of a file has arrived and its key
// is in the database, only this knows that the key is under way: others that
// come with it must not take places, nor be told that there is none.
func (p *uploadPlaces) enter(actor Actor, once *service.Once) (*uploadPlace, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	place := &uploadPlace{all: p}
	if once != nil {
		place.key = &once.OnceKey
		if _, busy := p.keys[*place.key]; busy {
			return nil, service.ErrKeyBusy
		}
	}
	var err error
	if place.give, err = p.first.take(actor, 1); err != nil {
		return nil, err
	}
	if place.key != nil {
		p.keys[*place.key] = struct{}{}
	}
	return place, nil
}

// enterAgain takes a place for the repeat of an upload that was answered.
func (p *uploadPlaces) enterAgain(actor Actor) (*uploadPlace, error) {
	give, err := p.again.take(actor, 1)
	if err != nil {
		return nil, err
	}
	return &uploadPlace{all: p, give: give}, nil
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
	p.give()
}

// forgetKey needs the lock.
func (p *uploadPlace) forgetKey() {
	if p.key != nil {
		delete(p.all.keys, *p.key)
		p.key = nil
	}
}
