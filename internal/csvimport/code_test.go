package csvimport

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
)

// codesOf returns the code of each row of file, or the reason why the row was refused.
func codesOf(t *testing.T, file []byte) []string {
	t.Helper()
	rows, _ := readLinks(t, file, SplitOptions{})
	for i, row := range rows {
		if _, code, found := strings.Cut(row, `"ShortCode":"`); found {
			rows[i], _, _ = strings.Cut(code, `"`)
		}
	}
	return rows
}

func TestCodesOfOtherShorteners(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"codes.csv":     {"v1.2", "team/walks", "T+B", "구글", "🚀", "jobs", "help", "~a"},
		"dub-query.csv": {"short_code " + errCodeQuery.Error(), "plain"},
	} {
		file, err := os.ReadFile("testdata/cases/" + name)
		require.NoError(t, err)
		if got := codesOf(t, file); !slices.Equal(got, want) {
			t.Errorf("%s: codes %q, want %q", name, got, want)
		}
	}
}

func TestCodeOfAShortURL(t *testing.T) {
	t.Parallel()
	refused := func(err error) string { return "short_code " + err.Error() }
	tests := map[string]string{
		"https://d.example/spring":                      "spring",
		"d.example/spring":                              "spring",
		"https://d.example/r/spring":                    "spring",
		"https://d.example/r/users/5":                   "users/5",
		"https://d.example/rspring":                     "rspring",
		"//d.example/spring":                            "spring",
		"spring":                                        "spring",
		"/spring":                                       "spring",
		"구글":                                            "구글",
		"spring?env=prod":                               refused(errCodeQuery),
		"d.example":                                     refused(errNoCode),
		"https://d.example/spring/":                     "spring",
		"https://d.example//spring//":                   "spring",
		"https://d.example/team/walks":                  "team/walks",
		"https://d.example/team%2Fwalks":                "team/walks",
		"https://d.example/%EA%B5%AC%EA%B8%80":          "구글",
		"https://d.example/caf%65%CC%81":                "café",
		"https://d.example/cafe\u0301":                  "café",
		"https://d.example/spring.":                     "spring.",
		"https://d.example/users":                       "users",
		"https://d.example/":                            refused(errNoCode),
		"https://d.example":                             refused(errNoCode),
		"https://d.example/abcd?env=prod":               refused(errCodeQuery),
		"https://d.example/abcd?":                       refused(errCodeQuery),
		"https://d.example/abcd#top":                    refused(errCodeQuery),
		"https://d.example/abcd/?env=prod":              refused(errCodeQuery),
		"https://d.example/abcd%3Fenv=prod":             refused(links.ErrCode),
		"https://d.example/100%":                        refused(errCodePath),
		"https://d.example/a%20b":                       refused(links.ErrCode),
		"https://d.example/a%2520b":                     refused(links.ErrCode),
		"https://d.example/a//b":                        refused(links.ErrCode),
		"https://d.example/../b":                        refused(links.ErrCode),
		"https://d.example/%FF":                         refused(links.ErrCode),
		"https://d.example/" + strings.Repeat("x", 256): refused(links.ErrCode),
	}
	for url, want := range tests {
		file := "Short link,Destination URL\n" + url + ",https://example.com/\n"
		if got := codesOf(t, []byte(file)); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}

// TestCodeOfAPath uses the paths of YOURLS' plugin.
func TestCodeOfAPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/spring/": "spring", "spring": "spring", "/team/walks": "team/walks",
		"/": "short_code " + errNoCode.Error(), "/a?b/": "short_code " + links.ErrCode.Error(),
	} {
		file := "source,target,hits\n" + path + ",https://example.com/,1\n"
		if got := codesOf(t, []byte(file)); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
