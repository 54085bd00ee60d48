package visits

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/signpost/signpost/internal/clicks"
)

const (
	chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
	iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1"
)

// TestKinds judges visits as they were seen in the field. The worker does the same with
// the flags that the redirect reads from the headers.
func TestKinds(t *testing.T) {
	t.Parallel()
	seen := map[Kind]int{}
	for _, row := range cases(t, "kinds.tsv") {
		want, agent, prefetch := Kind(row[0]), "", false
		for line := range strings.SplitSeq(row[1], " ¦ ") {
			name, value, _ := strings.Cut(line, ": ")
			switch name {
			case "User-Agent":
				agent = value
			case "Sec-Purpose", "Purpose", "X-Purpose", "X-Moz":
				prefetch = prefetch || LoadsAhead([]byte(value))
			default:
				assert.Equal(t, "(no User-Agent)", line)
			}
		}
		var none Marks
		got, rules := none.Judge(netip.MustParseAddr("192.0.2.1"), ReadAgent(agent).Kind, prefetch)
		assert.Equal(t, want, got, row[1])
		assert.Equal(t, Rules, rules)
		seen[want]++
	}
	for _, kind := range Kinds() {
		assert.NotZero(t, seen[kind], "there is no case of %s", kind)
	}
}

func TestReadAgent(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]Agent{
		chrome: {Person, "Chrome", "Windows", deviceDesktop},
		iphone: {Person, "Safari", "iOS", deviceMobile},
		"Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1": {
			Person, "Safari", "iOS", deviceTablet,
		},
		"Mozilla/5.0 (Linux; Android 13; CUBOT KINGKONG 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36": {
			Person, "Chrome", "Android", deviceMobile,
		},
		"": {Empty, "", "", deviceBot},
		"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": {Bot, "Googlebot", "", deviceBot},
		"WhatsApp/2.23.20.0":         {Preview, "WhatsApp", "", deviceBot},
		"curl/8.5.0":                 {Tool, "curl", "", deviceBot},
		"python-requests/2.31.0":     {Tool, "python-requests", "", deviceBot},
		"facebookexternalhit/1.1":    {Preview, "facebookexternalhit", "", deviceBot},
		"Slackbot-LinkExpanding 1.0": {Preview, "Slackbot", "", deviceBot},
		"kube-probe/1.27+":           {Monitor, "kube-probe", "", deviceBot},
		"SomeUnheardOfCrawler":       {Bot, "SomeUnheardOfCrawler", "", deviceBot},
		"w3m/0.5.3":                  {Person, "w3m", "", ""},
	} {
		assert.Equal(t, want, ReadAgent(header), header)
	}
}

// A name tells the kind of one program only, since that is all that is known of the
// events of earlier releases.
func TestKindOfProgram(t *testing.T) {
	t.Parallel()
	kinds := map[string]Kind{}
	for _, p := range slices.Concat(programs, starts) {
		if other, found := kinds[p.name]; found && other != p.kind {
			t.Errorf("%s is both %s and %s", p.name, p.kind, other)
		}
		kinds[p.name] = p.kind
		assert.Equal(t, strings.ToLower(p.words), p.words)
		got, found := KindOfProgram(p.name)
		assert.True(t, found)
		assert.Equal(t, p.kind, got)
	}
	_, found := KindOfProgram("Chrome")
	assert.False(t, found)
}

// A word that stands behind a word with the same letters in it is found all the same.
func TestWholeWords(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"curl": true, "curl/8": true, "(curl)": true, "libcurl": false, "curly": false, "curl2": false, "curly curl": true, "": false,
	} {
		assert.Equal(t, want, hasWords(s, "curl"), s)
	}
}

func TestStored(t *testing.T) {
	t.Parallel()
	monitor, yes, no := string(Monitor), true, false
	assert.Equal(t, Monitor, Stored(&monitor, &yes))
	assert.Equal(t, Bot, Stored(nil, &yes))
	assert.Equal(t, Person, Stored(nil, &no))
	assert.Equal(t, Person, Stored(nil, nil))
}

func TestAgentID(t *testing.T) {
	t.Parallel()
	assert.Equal(t, int64(563465869263302681), AgentID("curl/8.5.0"), "the id is not to change, since it is stored")
	assert.NotEqual(t, AgentID("curl/8.5.0"), AgentID("curl/8.5.1"))
}

func TestMarks(t *testing.T) {
	t.Parallel()
	marks := NewMarks([]Mark{
		{Network: netip.MustParsePrefix("10.0.0.0/8"), Kind: Tool},
		{Network: netip.MustParsePrefix("10.1.2.0/24"), Kind: Monitor},
		{Network: netip.MustParsePrefix("10.1.2.3/32"), Kind: Person},
		{Network: netip.MustParsePrefix("2001:db8::/32"), Kind: Bot},
		{Pattern: "Acme*", Kind: Monitor},
		{Pattern: "*Chrome/120.*", Kind: Bot},
		{Pattern: "curl/8.5.0", Kind: Person},
	})
	for _, test := range []struct {
		ip, header string
		prefetch   bool
		want       Kind
		rules      int16
	}{
		{"192.0.2.1", "Mozilla/5.0 (X11; Linux) Firefox/1", false, Person, Rules},
		{"192.0.2.1", "ACME/1", false, Monitor, Rules},
		{"192.0.2.1", "The Acme/1", false, Tool, Rules},
		{"192.0.2.1", chrome, false, Bot, Rules},
		{"192.0.2.1", chrome, true, Prefetch, Rules},
		{"192.0.2.1", "curl/8.5.0", false, Person, Rules},
		{"192.0.2.1", "curl/8.5.01", false, Tool, Rules},
		{"10.9.9.9", chrome, true, Tool, RulesMark},
		{"10.1.2.9", chrome, false, Monitor, RulesMark},
		{"10.1.2.3", chrome, false, Person, RulesMark},
		{"::ffff:10.1.2.3", chrome, false, Person, RulesMark},
		{"2001:db8:1::1", "ACME/1", false, Bot, RulesMark},
		{"2001:db9::1", "ACME/1", false, Monitor, Rules},
	} {
		kind, rules := marks.Judge(netip.MustParseAddr(test.ip), marks.ReadAgent(test.header).Kind, test.prefetch)
		assert.Equal(t, test.want, kind, "%+v", test)
		assert.Equal(t, test.rules, rules, "%+v", test)
	}
	kind, _ := marks.Judge(netip.Addr{}, Person, false)
	assert.Equal(t, Person, kind, "without an address")
	assert.Equal(t, Agent{Monitor, "acme", "", deviceBot}, marks.ReadAgent("acme"))
}

func TestFits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		s, pattern string
		want       bool
	}{
		{"abc", "abc", true},
		{"abc", "ab", false},
		{"abc", "*", true},
		{"", "*", true},
		{"abc", "a*", true},
		{"abc", "*c", true},
		{"abc", "*b*", true},
		{"abc", "a*c", true},
		{"ac", "a*c", true},
		{"a", "a*a", false},
		{"aba", "a*a", true},
		{"abcbd", "a*b*d", true},
		{"abc", "*d*", false},
		{"abcabc", "*abc", true},
		{"abab", "*ab*ab", true},
		{"ab", "*ab*ab", false},
		{"a.c", "a?c", false},
		{"aXXb", "a**b", true},
	} {
		assert.Equal(t, test.want, fits(test.s, test.pattern), "%q fits %q", test.s, test.pattern)
	}
}

func TestPeopleAndPrograms(t *testing.T) {
	t.Parallel()
	const android = "Mozilla/5.0 (Linux; Android 9; %s) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.99 Mobile Safari/537.36"
	for _, header := range []string{
		chrome, iphone,
		fmt.Sprintf(android, "CUBOT_X19 Build/PPR1"),
		fmt.Sprintf(android, "CUBOT"),
		fmt.Sprintf(android, "M bot 60"),
		fmt.Sprintf(android, "Robot Build/1"),
		fmt.Sprintf(android, "Crawler Pro"),
		fmt.Sprintf(android, "SM-G960F") + " [FB_IAB/FB4A;FBAV/300.0;FBDV/M bot 60;FBMF/CUBOT;]",
		fmt.Sprintf(android, "CUBOT X19") + " Instagram 100.0.0.17.129 Android (28/9; 480dpi; 1080x2160; CUBOT; M bot; en_US)",
		fmt.Sprintf(android, "SM-G960F") + " Viber/20.1",
		fmt.Sprintf(android, "SM-G960F") + " Line/13.0.0",
		"Mozilla/5.0 (Linux; U; Android 4.4.2; de-de; CUBOT S9 Build/KOT49H) AppleWebKit/534.30 (KHTML, like Gecko) Version/4.0 Mobile Safari/534.30",
		"Mozilla/5.0 (X11; Cubot OS) Gecko/20100101 Firefox/127.0",
		"Mozilla/5.0 (Android 13; Mobile; rv:127.0) Gecko/127.0 Firefox/127.0",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [FBAN/FBIOS;FBDV/iPhone14,5;]",
		"Opera/9.80 (J2ME/MIDP; Opera Mini/7.1.32052/29.3709; U; en) Presto/2.8.119 Version/11.10",
		"Nokia6100/1.0 Profile/MIDP-1.0 Configuration/CLDC-1.0",
		"Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0)",
		"Mozilla/5.0 (compatible; Konqueror/4.5; Linux) KHTML/4.5 (like Gecko)",
	} {
		if a := ReadAgent(header); a.Kind != Person {
			t.Errorf("%s: is no person but %+v", header, a)
		}
	}
	for _, header := range []string{
		"", "-", "Mozilla/5.0", "MyClient/1.0", "ruby", "VIBER/20 (x)", "whatsapp", "WhatsApp/2.2216.8 N", "okhttp/3.14.9", "okhttp/4.9 (Android 9; CUBOT)",
		"Dalvik/2.1.0 (Linux; U; Android 9; CUBOT_X19 Build/PPR1)", "News/1 CFNetwork/1410.0.3 Darwin/22.6.0",
		"kube-probe/1.27+", "Blackbox-Exporter/0.25.0 (x)", "Blackbox Exporter/0.25.0", "Uptime-Kuma/1.23.1 (x)",
		"Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1682",
		"Mozilla/5.0 (compatible; redditbot/1.0)", "Mozilla/5.0 (compatible; SomeBot2/1.0)", "Mozilla/5.0 (compatible; my bot 1.0)",
		"Mozilla/5.0 (compatible; Yahoo! Slurp)", "ia_archiver (x)", "Mozilla/5.0 (compatible; Acme-Crawler)", "Mozilla/5.0 (compatible; crawler4j)",
		fmt.Sprintf(android, "SM-G960F") + " (compatible; NewBot/2.1)",
		"Mozilla/5.0 (Linux; Android 7.0; compatible; NewBot/2.1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80 Mobile Safari/537.36",
		"Mozilla/5.0 (Linux; Android 7.0; NewBot/2.1; https://new.example/) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80 Mobile Safari/537.36",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
		"Mozilla/5.0 (compatible;Cloudflare-Traffic-Manager/1.0)", "Mozilla/5.0 (compatible; Feedbin feed-id:1)",
		fmt.Sprintf(android, "Nexus 5X") + " (compatible; Google-InspectionTool/1.0;)",
		"Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; ms-office; MSOffice 16)", "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Word 16)",
		"check_http/v2.4 (nagios-plugins 2.4)", "Dart/3.0 (dart:io)",
		"Acme Link Preview (acme)", "Mozilla/5.0 (X11; Linux) AcmeMonitoring/1",
	} {
		if a := ReadAgent(header); a.Kind == Person || a.Device != deviceBot {
			t.Errorf("%s: a person with %q", header, a.Browser)
		}
	}
}

// Whatever a client sends, the results are short texts.
func FuzzReadAgent(f *testing.F) {
	for _, seed := range []string{chrome, iphone, "", "\x00\xff", strings.Repeat("a", 5000), "(((;;;)))/ / /", "Version/ Mobile/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		a := ReadAgent(header)
		if !IsKind(string(a.Kind)) || a.Kind == Prefetch {
			t.Errorf("%q is of kind %q", header, a.Kind)
		}
		for _, name := range []string{a.Browser, a.OS, a.Device} {
			if len(name) > nameMax || clicks.Clean(name, nameMax) != name {
				t.Errorf("%q gives %q", header, name)
			}
		}
	})
}

func TestCountry(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]string{
		"8.8.8.8": "US", "193.0.6.139": "NL", "2001:4860:4860::8888": "US",
		"10.0.0.1": "", "192.168.1.1": "", "127.0.0.1": "", "169.254.1.1": "", "::1": "", "fd00::1": "", "fe80::1": "", "224.0.0.1": "", "0.0.0.0": "",
	} {
		if got := Country(netip.MustParseAddr(ip)); strings.TrimRight(string(got[:]), "\x00") != want {
			t.Errorf("%s: got %q, want %q", ip, got, want)
		}
	}
	if got := Country(netip.Addr{}); got != [2]byte{} {
		t.Errorf("no address: got %q", got)
	}
}
