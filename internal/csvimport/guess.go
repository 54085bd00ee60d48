package csvimport

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
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

// leastLikely is the lowest score at which a text is taken to be in an encoding. The
// score is the mean over the characters beyond ASCII; for the right encoding it is
// about 2.
const leastLikely = 0.5

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
	most := leastLikely
	for _, encoding := range guesses {
		if score := likelihood(decodedAs(text, encoding)); score > most {
			best, most = encoding, score
		}
	}
	return best
}

// likeness returns the rest of a sentence which begins by saying that something is not
// UTF-8.
func likeness(guess Encoding) string {
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

func decodedAs(text string, as Encoding) []rune {
	runes := make([]rune, len(text))
	for i := range len(text) {
		runes[i] = charmaps[as].DecodeByte(text[i])
	}
	return runes
}

// likelihood is the mean of the scores of a text's characters beyond ASCII.
func likelihood(text []rune) float64 {
	sum, n := 0, 0
	for i, r := range text {
		if r < utf8.RuneSelf {
			continue
		}
		before, after := ' ', ' '
		if i > 0 {
			before = text[i-1]
		}
		if i+1 < len(text) {
			after = text[i+1]
		}
		sum += fits(r, before, after)
		n++
	}
	if n == 0 {
		return 0
	}
	return float64(sum-4*strange(text)) / float64(n)
}

// alphabets are the letters beyond ASCII of a language, or of some that are alike.
var alphabets = [...]string{
	"äöüßéà",           // German
	"àâæçéèêëîïôœùûüÿ", // French
	"áéíóúüñ",          // Spanish
	"áàâãçéêíóôõúü",    // Portuguese
	"àèéìîòù",          // Italian
	"àçèéíïòóúü",       // Catalan
	"éëïöüè",           // Dutch
	"åäöõüéšž",         // Swedish, Finnish, Estonian
	"åæøéòôê",          // Danish, Norwegian
	"áðéíóúýþæö",       // Icelandic
}

// strange counts the letters beyond ASCII in words for which no alphabet has all
// letters. Czech read as Windows-1252 has many such words: no language writes both á
// and ì.
func strange(text []rune) (n int) {
	for word := range strings.FieldsFuncSeq(string(text), func(r rune) bool { return !letter(r) }) {
		beyond := strings.Map(func(r rune) rune {
			if r < utf8.RuneSelf {
				return -1
			}
			return unicode.ToLower(r)
		}, word)
		has := func(alphabet string) bool { return strings.Trim(beyond, alphabet) == "" }
		if !slices.ContainsFunc(alphabets[:], has) {
			n += utf8.RuneCountInString(beyond)
		}
	}
	return n
}

// rare are letters that hardly a language of western Europe has, least of all at
// the end of a word.
const rare = "ŠšŽžŸÿƒı"

// words are letters that are whole words in languages of western Europe.
const words = "ÀàÈèÉé"

// punctuation is what people, and their word processors, write beside letters.
const punctuation = "–—‘’‚“”„…•‹›«»¡¿§©®™°ªº€£\u00a0"

// fits scores a character by those around it: letters stand beside letters, in
// their case; punctuation stands between words, other signs hardly ever.
func fits(r, before, after rune) int {
	switch {
	case r == utf8.RuneError || unicode.IsControl(r):
		return -20
	case letter(r):
		return letterFits(r, before, after)
	case r == '’' && ascii(before) && ascii(after):
		return 2
	case (r == '¿' || r == '¡') && !letter(after):
		return -1
	case letter(before) && letter(after):
		return -2
	case strings.ContainsRune(punctuation, r) && (before < utf8.RuneSelf || after < utf8.RuneSelf):
		return 1
	}
	return -1
}

// letterFits scores a letter beyond ASCII. A capital inside a word of small letters
// counts as no letter, and neither does a word that has only letters beyond ASCII: that
// would be another script, and the encodings of other scripts are not read.
func letterFits(r, before, after rune) int {
	switch {
	case unicode.IsUpper(r) && (unicode.IsLower(before) || unicode.IsUpper(before) && unicode.IsLower(after)):
		return -2
	case !letter(before) && !letter(after) && strings.ContainsRune(words, r):
		return 1
	case !letter(before) && !letter(after):
		return -1
	case !ascii(before) && !ascii(after):
		return -1
	case strings.ContainsRune(rare, r) && !letter(after):
		return 0
	case strings.ContainsRune(rare, r):
		return 1
	}
	return 2
}

// ascii reports whether r is one of the 26 letters.
func ascii(r rune) bool { return r < utf8.RuneSelf && letter(r) }

// letter reports whether r is a letter that has a case. Accents alone have none.
func letter(r rune) bool { return unicode.IsLower(r) || unicode.IsUpper(r) }
