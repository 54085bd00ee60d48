package worker

import "testing"

// A worker goes on with a tag that a request has begun to rename, and adds the numbers up.
func TestWorkersMoveTags(t *testing.T) {
	s := setup(t)
	s.exec("INSERT INTO users (id, username, email) VALUES (1, 'ann', 'ann@example.com')")
	s.exec(`INSERT INTO urls (user_id, short_code, original_url, tags) SELECT 1, 'c' || n, 'https://example.com/', '{old}' FROM generate_series(1, 700) n`)
	s.exec(`INSERT INTO tag_moves (name, target, actor) VALUES ('old', 'new', '{"name": "somebody"}')`)
	s.start(nil)
	s.eventually("the links are moved", func() bool {
		return s.int("SELECT count(*) FROM tag_moves") == 0 && s.int("SELECT COALESCE(sum(links), 0) FROM tags WHERE name = 'new'") == 700
	})
	s.wantInt(700, "SELECT count(*) FROM urls WHERE tags = '{new}'")
	s.wantInt(700, "SELECT count(*) FROM events WHERE event_type = 'updated'")
	s.wantInt(0, "SELECT count(*) FROM tags WHERE name = 'old'")
}
