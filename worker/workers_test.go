package worker

import "testing"

// A worker says that it runs, and that it has stopped. One that vanished is told of for an
// hour.
func TestWorkersReport(t *testing.T) {
	s := setup(t)
	s.exec("INSERT INTO workers (id, host, version, queues, seen_at) VALUES ('long ago', '', '', '{}', now() - interval '2 hours'), ('gone', '', '', '{}', now() - interval '10 minutes')")
	w := s.start(map[string]int{"clicks": 2, "maintenance": 1})
	s.eventually("the worker is there", func() bool {
		return s.int("SELECT count(*) FROM workers WHERE queues = '{clicks=2,maintenance=1}' AND seen_at > now() - interval '1 minute'") == 1
	})
	s.eventually("one is forgotten", func() bool { return s.int("SELECT count(*) FROM workers WHERE id = 'long ago'") == 0 })
	s.stop(w)
	s.wantInt(1, "SELECT count(*) FROM workers")
}
