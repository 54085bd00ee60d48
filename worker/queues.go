package worker

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/signpost/signpost/internal/jobs"
)

// maxConcurrency bounds how many jobs of one queue a process runs at once.
const maxConcurrency = 1000

// DefaultQueues returns the queues that a worker serves by default, with the number of
// jobs that run at once in each. In the queue of maintenance there are two, so that
// batches and imports are re-enqueued while rows are pruned.
func DefaultQueues() map[string]int {
	return map[string]int{jobs.QueueClicks: 2, jobs.QueueImports: 2, jobs.QueueMaintenance: 2, jobs.QueueRetention: 1}
}

// ParseQueues reads a list of queues such as "clicks=2,imports=4": names from package
// jobs, with the number of jobs that run at once in each (1 to 1000). For an empty text
// it returns DefaultQueues. Its error names the allowed values.
func ParseQueues(text string) (map[string]int, error) {
	if strings.TrimSpace(text) == "" {
		return DefaultQueues(), nil
	}
	queues := map[string]int{}
	for part := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		if _, known := DefaultQueues()[name]; !known {
			return nil, fmt.Errorf("no queue is called %q: there are %s", name, queueNames())
		}
		if _, twice := queues[name]; twice {
			return nil, fmt.Errorf("queue %q is named twice", name)
		}
		n, err := strconv.Atoi(strings.TrimSpace(number))
		if err != nil || n < 1 || n > maxConcurrency {
			return nil, fmt.Errorf("queue %q: want a number from 1 to %d after '=', as in %s=2", name, maxConcurrency, name)
		}
		queues[name] = n
	}
	return queues, nil
}

// textOf returns queues in the form that ParseQueues reads, one by one.
func textOf(queues map[string]int) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		all = append(all, name+"="+strconv.Itoa(queues[name]))
	}
	return all
}

func queueNames() string {
	return strings.Join(slices.Sorted(maps.Keys(DefaultQueues())), ", ")
}
