package csvimport

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/signpost/signpost/internal/links"
)

// guesses are the encodings that a file which is not UTF-8 may be in, the
// likeliest first. ISO 8859-1 is not among them: text in it is Windows-1252 too.
var guesses = []Encoding{EncodingWindows1252, EncodingISO885915, EncodingMacintosh}

// names are what people call an encoding.
var names = map[Encoding]string{
	EncodingWindows1252: "Windows-1252",
	EncodingISO885915:   "ISO 8859-15",
	EncodingMacintosh:   "Mac Roman",
}

// GuessEncoding guesses the encoding of a file by some of its records that are not
// valid UTF-8: it returns the encoding in which they read most like text of western
// Europe. It returns "" if they do so in none, or if they are UTF-8 except for some
// stray bytes.
func GuessEncoding(records []string) Encoding {
	text := strings.Join(records, "\n")
	if damagedUTF8(text) || looksBinary([]byte(text)) {
		return ""
	}
	var best Encoding
	most := 0
	for _, encoding := range guesses {
		if n := likeness(decodedAs(text, encoding)); n > most {
			best, most = encoding, n
		}
	}
	return best
}

// likely returns the rest of a sentence which begins by saying that something is not
// UTF-8.
func likely(guess Encoding) string {
	if guess == "" {
		return ""
	}
	return ": it looks like " + names[guess] + ", which encoding=" + string(guess) + " reads"
}

// damagedUTF8 reports whether text is UTF-8 except for a few bytes: for every four
// wrong bytes it has at least one valid character beyond ASCII. Text in another
// encoding has such characters only by chance, and then they are of scripts that hardly
// any file uses: in Mac Roman, the apostrophe and the letter after it in l’été form an
// Armenian character.
func damagedUTF8(text string) bool {
	sound, broken := 0, 0
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			broken++
		case r >= utf8.RuneSelf && !unlikely(r):
			sound++
		}
		text = text[size:]
	}
	return 4*sound >= broken
}

// unlikely are the blocks from the rest of Latin to accents, from the rest of
// Cyrillic to Armenian, and from Syriac to before Devanagari.
func unlikely(r rune) bool {
	return 0x180 <= r && r < 0x370 || 0x460 <= r && r < 0x590 || 0x700 <= r && r < 0x900
}

func decodedAs(text string, as Encoding) string {
	runes := make([]rune, len(text))
	for i := range len(text) {
		runes[i] = charmaps[as].DecodeByte(text[i])
	}
	return string(runes)
}

// alphabets are the letters beyond ASCII of a language, or of some that are alike.
var alphabets = [...]string{
	"äöüßéà",          // German
	"àâæçéèêëîïôœùûü", // French
	"áéíóúüñ",         // Spanish
	"áàâãçéêíóôõúü",   // Portuguese
	"àèéìîòù",         // Italian
	"àçèéíïòóúü",      // Catalan
	"éëïöüè",          // Dutch
	"åäöõüéšž",        // Swedish, Finnish, Estonian
	"åæøéòôê",         // Danish, Norwegian
	"áðéíóúýþæö",      // Icelandic
}

// punctuation is what people, and their word processors, write beside letters.
const punctuation = "–—‘’‚“”„…•‹›«»¡¿§©®™°ªº€£\u00a0"

// likeness says how much a text looks like one of western Europe: the number of words
// and signs beyond ASCII that do, less four times the number of those that do not. Text
// in an encoding that is not read looks right here and there.
func likeness(text string) (n int) {
	judge := func(right bool) {
		if right {
			n++
		} else {
			n -= 4
		}
	}
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return !letter(r) }) {
		if !links.IsASCII(word) {
			judge(isWord(word))
		}
	}
	for i, r := range text {
		if r >= utf8.RuneSelf && !letter(r) {
			before, _ := utf8.DecodeLastRuneInString(text[:i])
			after, _ := utf8.DecodeRuneInString(text[i+utf8.RuneLen(r):])
			beside := !letter(before) || !letter(after) || r == '’'
			opens := r == '¿' || r == '¡'
			judge(strings.ContainsRune(punctuation, r) && beside && (letter(after) || !opens))
		}
	}
	return n
}

// isWord reports whether a word with letters beyond ASCII may be one of a language of
// western Europe. No language has a word of such letters alone, but for some of one
// letter, which would be another script. No word has a capital after a small letter.
// Hardly any ends in š or ž, but ö and û of another encoding look like that. And one
// language has all the letters: Czech read as Windows-1252 has words with á and ì.
func isWord(word string) bool {
	small := strings.ToLower(word)
	beyond := strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			return -1
		}
		return r
	}, small)
	_, size := utf8.DecodeRuneInString(word)
	switch {
	case beyond == small:
		return small == "à" || small == "è" || small == "é"
	case word != small && word != strings.ToUpper(word) && word[size:] != small[size:],
		strings.HasSuffix(small, "š"), strings.HasSuffix(small, "ž"):
		return false
	}
	return slices.ContainsFunc(alphabets[:], func(alphabet string) bool { return strings.Trim(beyond, alphabet) == "" })
}

// letter reports whether r is a letter that has a case. Accents alone have none.
func letter(r rune) bool { return unicode.IsLower(r) || unicode.IsUpper(r) }
