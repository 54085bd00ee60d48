package worker

import (
	"strings"
	"testing"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/links"
)

// An import follows the same rules for targets as the API, whatever its policy.
func TestImportOfPastedTargets(t *testing.T) {
	s := setup(t)
	s.exec(ann)
	s.exec(`INSERT INTO urls (id, user_id, short_code, original_url) VALUES
		(1, 1, 'same', 'https://bücher.example/a b'), (2, 1, 'changed', 'https://example.com/')`)
	s.start(nil)
	long := "https://example.com/" + strings.Repeat("x", links.MaxTarget-len("https://example.com/"))
	id := s.uploadAs(csvimport.KindLinks, `user_id,short_code,original_url
1,same,"  https://bücher.example/a b
"
1,changed,`+"\u200b"+`https://shop.example/100%-cotton|x 
1,long,`+long+`
1,own,https://ＳＩＧＮ.test./r/x
1,bare,example.com/menu
1,longer,`+long+`x
`, csvimport.SplitOptions{}, csvimport.PolicyUpdate, false)
	s.ended(id)
	if got, want := s.outcomesOf(id), "2 updated 1 {}\n4 updated 2 {\"original_url\": \"https://example.com/\"}"; got != want {
		t.Errorf("outcomes are\n%s\nwant\n%s", got, want)
	}
	s.wantInt(1, "SELECT count(*) FROM urls WHERE short_code = 'same' AND original_url = 'https://bücher.example/a b'")
	s.wantInt(1, "SELECT count(*) FROM urls WHERE short_code = 'changed' AND original_url = 'https://shop.example/100%-cotton|x'")
	s.wantInt(1, "SELECT count(*) FROM urls WHERE short_code = 'long' AND original_url = $1", long)
	reasons := s.text("SELECT string_agg(concat_ws(' ', line, field, reason), E'\n' ORDER BY line) FROM import_errors WHERE import_id = $1", id)
	want := "6 original_url " + links.ErrTargetOwn.Error() +
		"\n7 original_url " + links.SchemeError{Suggestion: "https://example.com/menu"}.Error() +
		"\n8 original_url " + links.ErrTargetLength.Error()
	if reasons != want {
		t.Errorf("rejected:\n%s\nwant:\n%s", reasons, want)
	}
}
