package csvimport

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
)

func TestParseEncoding(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Encoding{
		"": "", "utf-8": EncodingUTF8, "UTF8": EncodingUTF8, "utf-8-sig": EncodingUTF8, "utf_16": EncodingUTF16, "UTF-16LE": EncodingUTF16LE,
		"windows-1252": EncodingWindows1252, "Windows 1252": EncodingWindows1252, "cp1252": EncodingWindows1252, "CP-1252": EncodingWindows1252,
		"iso-8859-1": EncodingISO88591, "ISO8859-1": EncodingISO88591, "latin1": EncodingISO88591, "latin-1": EncodingISO88591,
		"ISO_8859-15": EncodingISO885915, "latin9": EncodingISO885915, "macintosh": EncodingMacintosh, "mac-roman": EncodingMacintosh,
	} {
		if got, err := ParseEncoding(name); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"utf-32", "shift_jis", "windows-1251", "iso-8859-2", "utf-7", "xyz", "-"} {
		if got, err := ParseEncoding(name); err == nil || !strings.Contains(err.Error(), "windows-1252") {
			t.Errorf("%q is %q, %v; want an error that names the encodings", name, got, err)
		}
	}
}

// TestEncodings reads texts in every supported encoding, in reads of any size, and
// finds which encoding it was.
func TestEncodings(t *testing.T) {
	t.Parallel()
	little, big := unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	const western, roman = "Müller, Straße – “10 €” déjà", "Müller, Straße – “10 €” Ωmega ∞ ﬁ"
	for _, tt := range []struct {
		name   string
		option Encoding
		by     encoding.Encoding
		mark   string // in UTF-8
		text   string
		want   Encoding
	}{
		{"UTF-8", "", encoding.Nop, "", roman, EncodingUTF8},
		{"UTF-8, said", EncodingUTF8, encoding.Nop, "", roman, EncodingUTF8},
		{"UTF-8 with a mark", "", encoding.Nop, "\ufeff", roman, EncodingUTF8},
		{"UTF-8 with a mark, said to be another", EncodingWindows1252, encoding.Nop, "\ufeff", roman, EncodingUTF8},
		{"UTF-16 by its zeros", "", little, "", western + "😀", EncodingUTF16LE},
		{"UTF-16 by its zeros, the other order", "", big, "", western + "😀", EncodingUTF16BE},
		{"UTF-16 with a mark", EncodingUTF16, big, "\ufeff", western + "😀", EncodingUTF16BE},
		{"UTF-16 with a mark, said to be the other order", EncodingUTF16BE, little, "\ufeff", western, EncodingUTF16LE},
		{"UTF-16, said", EncodingUTF16, big, "", western, EncodingUTF16BE},
		{"UTF-16 that does not look like it", EncodingUTF16, little, "", strings.Repeat("世界", 200), EncodingUTF16LE},
		{"UTF-16 in an order, said", EncodingUTF16BE, big, "", strings.Repeat("世界", 200), EncodingUTF16BE},
		{"UTF-16 with U+FFFD in it", "", little, "", "a\ufffdb", EncodingUTF16LE},
		{"Windows-1252", EncodingWindows1252, charmap.Windows1252, "", western, EncodingWindows1252},
		{"ISO 8859-1", EncodingISO88591, charmap.ISO8859_1, "", "Müller, déjà ¼ \u0096", EncodingISO88591},
		{"ISO 8859-15", EncodingISO885915, charmap.ISO8859_15, "", "Müller, cœur, 10 €, Ž", EncodingISO885915},
		{"Mac Roman", EncodingMacintosh, charmap.Macintosh, "", roman, EncodingMacintosh},
	} {
		// The bytes that identify the encoding come only after the header, whose
		// columns are ASCII.
		file, err := tt.by.NewEncoder().String(tt.mark + "id,username,email\n1,\"" + tt.text + "\",a@x\n")
		require.NoErrorf(t, err, "%s", tt.name)
		want := []string{`2: ["1" "` + tt.text + `" "a@x"]`}
		want[0] = strings.ReplaceAll(want[0], "\u0096", `\u0096`) // in the form of %q
		for how, in := range map[string]func() ([]string, Layout, error){
			"whole": func() ([]string, Layout, error) {
				return read(KindUsers, strings.NewReader(file), SplitOptions{Encoding: tt.option})
			},
			"byte by byte": func() ([]string, Layout, error) {
				return read(KindUsers, iotest.OneByteReader(strings.NewReader(file)), SplitOptions{Encoding: tt.option})
			},
		} {
			got, layout, err := in()
			if err != nil || !slices.Equal(got, want) || layout.Encoding != tt.want {
				t.Errorf("%s, %s: %q in %s, %v; want %q in %s", tt.name, how, got, layout.Encoding, err, want, tt.want)
			}
		}
	}
}

// Bytes that are not valid in the encoding of a file make the row wrong. The character
// U+FFFD does not.
func TestBrokenText(t *testing.T) {
	t.Parallel()
	for as, test := range map[Encoding][2]string{
		EncodingUTF8:        {"a\xff", "must be valid UTF-8"},
		EncodingWindows1252: {"a\x81", "has bytes that are no characters in windows-1252"},
		EncodingISO885915:   {"a\x85", "has bytes that are no characters in iso-8859-15"},
	} {
		broken, reason := test[0], test[1]
		got, _, err := read(KindUsers, strings.NewReader("id,username,email\n1,"+broken+",x\n2,b,y\n"), SplitOptions{Encoding: as})
		if want := []string{"2: username " + reason, `3: ["2" "b" "y"]`}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", as, got, err, want)
		}
	}
	// Every character of an encoding is read: each of the 256 bytes is either a
	// character or wrong.
	for as, table := range charmaps {
		for i := range 256 {
			got := make([]byte, 8)
			n, _, err := charmapDecoder{charmap: table}.Transform(got, []byte{byte(i)}, true)
			want := []byte(string(table.DecodeByte(byte(i))))
			if bytes.Equal(want, []byte("\ufffd")) {
				want = []byte{notText}
			}
			if err != nil || !bytes.Equal(got[:n], want) {
				t.Errorf("%s: byte %x is %x, %v; want %x", as, i, got[:n], err, want)
			}
		}
	}
}

// FuzzEncodings decodes any bytes in each encoding. The result must not depend on the
// pieces in which they come. It must be valid UTF-8, except for the marks of invalid
// bytes. In an encoding of one byte a character, it must have one character for each
// byte.
func FuzzEncodings(f *testing.F) {
	for _, seed := range []string{"", "plain", "M\xfcnchen \x96 Bad", "a\x00\x00\xd8b\x00", "\x81\x8d\xff", "caf\xc3\xa9"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, as := range []Encoding{EncodingUTF16LE, EncodingUTF16BE, EncodingWindows1252, EncodingISO88591, EncodingISO885915, EncodingMacintosh} {
			whole, err := io.ReadAll(decoded(bytes.NewReader(file), as))
			require.NoErrorf(t, err, "%s", as)
			pieces, err := io.ReadAll(decoded(iotest.OneByteReader(bytes.NewReader(file)), as))
			if err != nil || !bytes.Equal(whole, pieces) {
				t.Fatalf("%s: %q in one piece, %q byte by byte, %v", as, whole, pieces, err)
			}
			if text := bytes.ReplaceAll(whole, []byte{notText}, nil); !utf8.Valid(text) {
				t.Fatalf("%s: %q is not UTF-8", as, text)
			}
			if n := utf8.RuneCount(whole); charmaps[as] != nil && n != len(file) {
				t.Fatalf("%s: %d characters of %d bytes", as, n, len(file))
			}
		}
		if guess := GuessEncoding([]string{string(file)}); guess != "" && names[guess] == "" {
			t.Fatalf("the guess is %q", guess)
		}
	})
}
