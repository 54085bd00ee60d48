package csvimport

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
)

func encoded(t *testing.T, text string, as encoding.Encoding) string {
	t.Helper()
	s, err := as.NewEncoder().String(text)
	require.NoErrorf(t, err, "%q", text)
	return s
}

func TestGuessEncoding(t *testing.T) {
	t.Parallel()
	win, mac, iso := charmap.Windows1252, charmap.Macintosh, charmap.ISO8859_15
	for _, tt := range []struct {
		text string
		as   encoding.Encoding
		want Encoding
	}{
		// Each is in one encoding and language, and is a word or a line.
		{"München – Bad", win, EncodingWindows1252},
		{"Café", win, EncodingWindows1252},
		{"café", win, EncodingWindows1252},
		{"CAFÉ", win, EncodingWindows1252},
		{"Übersicht; Öfen; Äpfel; Straße", win, EncodingWindows1252},
		{"MÜNCHEN GRÜSST", win, EncodingWindows1252},
		{"L’été à la plage, cœur à cœur", win, EncodingWindows1252},
		{"“Quoted” text… and a dash — so", win, EncodingWindows1252},
		{"10 € only", win, EncodingWindows1252},
		{"Año nuevo, ¿qué tal?", win, EncodingWindows1252},
		{"São Paulo, coração", win, EncodingWindows1252},
		{"smørrebrød, blåbær, Ærø", win, EncodingWindows1252},
		{"Škoda, šéf", win, EncodingWindows1252},
		{"it’s Joe’s", win, EncodingWindows1252},
		{"„Angebot“ – jetzt", win, EncodingWindows1252},
		{"À propos", win, EncodingWindows1252},
		{"São João; Größe; Où êtes-vous; Año; Ærø; città; Þórður; Hyvää yötä", win, EncodingWindows1252},
		{"Müller-Österåker, El Niño’s café", win, EncodingWindows1252},
		{"München", mac, EncodingMacintosh},
		{"Café, déjà vu", mac, EncodingMacintosh},
		{"L’été à la plage, cœur à cœur", mac, EncodingMacintosh},
		{"L’été, l’école, “événement”", mac, EncodingMacintosh},
		{"Straße nach Köln", mac, EncodingMacintosh},
		{"Año nuevo, ¿qué tal?", mac, EncodingMacintosh},
		{"smørrebrød, blåbær", mac, EncodingMacintosh},
		{"cœur de bœuf, 10 €", iso, EncodingISO885915},
		// If the text is the same in both, it counts as Windows-1252.
		{"Müller, Straße, déjà vu", iso, EncodingWindows1252},
		{"Müller, Straße, déjà vu", charmap.ISO8859_1, EncodingWindows1252},
		// Encodings that users cannot choose are not guessed.
		{"Příliš žluťoučký kůň úpěl ďábelské ódy", charmap.Windows1250, ""},
		{"Vánoční dárky; Nápověda; Ceník služeb", charmap.Windows1250, ""},
		{"Vánoční dárky; Nápověda; Ceník služeb", charmap.ISO8859_2, ""},
		{"Zażółć gęślą jaźń; oferta świąteczna; Łódź", charmap.Windows1250, ""},
		{"Árvíztűrő tükörfúrógép", charmap.Windows1250, ""},
		{"Güneş, İstanbul, ağaç, öğrenci", charmap.Windows1254, ""},
		{"Žalgiris, ąžuolas", charmap.Windows1257, ""},
		{"Привет мир, как дела", charmap.Windows1251, ""},
		{"Привет мир, как дела", charmap.KOI8R, ""},
		{"Καλημέρα κόσμε", charmap.Windows1253, ""},
		{"שלום עולם", charmap.Windows1255, ""},
		{"こんにちは世界", japanese.ShiftJIS, ""},
		{"こんにちは世界", japanese.EUCJP, ""},
		{"안녕하세요 세계", korean.EUCKR, ""},
		{"你好，世界，链接", simplifiedchinese.GBK, ""},
	} {
		if got := GuessEncoding([]string{encoded(t, tt.text, tt.as)}); got != tt.want {
			t.Errorf("%q in %v: %q, want %q", tt.text, tt.as, got, tt.want)
		}
	}
}

func TestGuessEncodingOfWhatIsNone(t *testing.T) {
	t.Parallel()
	for name, records := range map[string][]string{
		"nothing":                    nil,
		"ASCII":                      {"plain text"},
		"UTF-8":                      {"Müller, Straße"},
		"UTF-8 with a stray byte":    {"Müller\xff, Straße"},
		"UTF-8 cut in a character":   {"Müller, Straße, caf\xc3"},
		"bytes of a binary file":     {"\x00\x01\x02\xfe\x80\x03\x04abc\x05\xff"},
		"bytes of no text at all":    {"a\x81\x8d\x8f\x90\x9db"},
		"all high bytes":             {"\x80\x81\x82\x83\xfc\xfd\xfe\xff"},
		"notText of another decoder": {"1,a\xff,x"},
	} {
		if got := GuessEncoding(records); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}
