package worker

import (
	"slices"
	"strings"
)

// tools are clients that are not browsers. Each has words that its lower-case header
// contains, and the name that is reported for it. Parsers of browsers do not recognize
// them. More specific words come first.
var tools = []struct{ words, name string }{
	{"googlebot", "Googlebot"},
	{"bingbot", "Bingbot"},
	{"yandexbot", "YandexBot"},
	{"duckduckbot", "DuckDuckBot"},
	{"baiduspider", "Baiduspider"},
	{"applebot", "Applebot"},
	{"gptbot", "GPTBot"},
	{"claudebot", "ClaudeBot"},
	{"ahrefsbot", "AhrefsBot"},
	{"semrushbot", "SemrushBot"},
	{"facebookexternalhit", "facebookexternalhit"},
	{"facebot", "Facebot"},
	{"meta-externalagent", "meta-externalagent"},
	{"slackbot", "Slackbot"},
	{"slack-imgproxy", "Slackbot"},
	{"telegrambot", "TelegramBot"},
	{"discordbot", "Discordbot"},
	{"twitterbot", "Twitterbot"},
	{"linkedinbot", "LinkedInBot"},
	{"redditbot", "redditbot"},
	{"bingpreview", "BingPreview"},
	{"microsoftpreview", "MicrosoftPreview"},
	{"skypeuripreview", "SkypeUriPreview"},
	{"mastodon", "Mastodon"},
	{"bluesky cardyb", "Bluesky"},
	{"pinterestbot", "Pinterestbot"},
	{"vkshare", "vkShare"},
	{"embedly", "Embedly"},
	{"iframely", "Iframely"},
	{"headlesschrome", "Headless Chrome"},
	{"phantomjs", "PhantomJS"},
	{"chrome-lighthouse", "Lighthouse"},
	{"curl", "curl"},
	{"libcurl", "curl"},
	{"wget", "Wget"},
	{"python-requests", "python-requests"},
	{"python-urllib", "Python-urllib"},
	{"python-httpx", "python-httpx"},
	{"aiohttp", "aiohttp"},
	{"scrapy", "Scrapy"},
	{"go-http-client", "Go-http-client"},
	{"fasthttp", "fasthttp"},
	{"okhttp", "okhttp"},
	{"dalvik", "Dalvik"},
	{"cfnetwork", "CFNetwork"},
	{"apache-httpclient", "Apache-HttpClient"},
	{"java/", "Java"},
	{"dart:io", "Dart"},
	{"ms-office", "Microsoft Office"},
	{"microsoft office", "Microsoft Office"},
	{"libwww-perl", "libwww-perl"},
	{"guzzlehttp", "Guzzle"},
	{"node-fetch", "node-fetch"},
	{"axios", "axios"},
	{"undici", "undici"},
	{"postmanruntime", "Postman"},
	{"insomnia", "Insomnia"},
	{"httpie", "HTTPie"},
	{"powershell", "PowerShell"},
	{"windowspowershell", "PowerShell"},
	{"uptimerobot", "UptimeRobot"},
	{"uptime-kuma", "Uptime Kuma"},
	{"pingdom", "Pingdom"},
	{"statuscake", "StatusCake"},
	{"kube-probe", "kube-probe"},
	{"blackbox exporter", "Blackbox Exporter"},
	{"check_http", "check_http"},
	{"elb-healthchecker", "ELB-HealthChecker"},
	{"googlehc", "GoogleHC"},
	{"feedfetcher", "Feedfetcher"},
	{"feedly", "Feedly"},
	{"w3c_validator", "W3C Validator"},
}

// apps fetch previews of links that people send in them. Their header begins with the
// app's name. The header of the browser inside such an app may name the app too, but
// not at its beginning.
var apps = []struct{ words, name string }{
	{"whatsapp", "WhatsApp"},
	{"viber", "Viber"},
}

// toolOf returns the name of the tool that sent a lower-case header, "" if it is none
// of the known ones.
func toolOf(header string) string {
	for _, t := range tools {
		if hasWords(header, t.words) {
			return t.name
		}
	}
	for _, t := range apps {
		if rest, ok := strings.CutPrefix(header, t.words); ok && (rest == "" || !isWord(rest[0])) {
			return t.name
		}
	}
	return ""
}

// hasWords reports whether s has words that are not parts of longer ones.
func hasWords(s, words string) bool {
	for from := 0; ; {
		i := strings.Index(s[from:], words)
		if i < 0 {
			return false
		}
		start, end := from+i, from+i+len(words)
		if (start == 0 || !isWord(s[start-1])) && (end == len(s) || !isWord(s[end]) || !isWord(s[end-1])) {
			return true
		}
		from = end
	}
}

// isWord reports whether a lower-case byte belongs to a word.
func isWord(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// botEnds are endings of words by which bots are recognized that are not among the
// tools.
var botEnds = []string{
	"bot", "bots", "crawler", "crawlers", "spider", "spiders", "slurp", "scraper", "archiver", "preview", "previewer",
	"monitor", "monitoring", "probe", "exporter", "fetcher", "checker", "validator", "scanner", "indexer",
}

// isBot reports whether the words of a lower-case header show that a program sent it,
// and not a person's browser.
func isBot(header string) bool {
	if isBare(header) || isCompatible(header) {
		return true
	}
	words := strings.FieldsFunc(withoutDevice(header), func(r rune) bool { return r > '\x7f' || !isWord(byte(r)) })
	return slices.ContainsFunc(words, func(word string) bool {
		word = strings.TrimRight(word, "0123456789")
		return word != "cubot" && (strings.HasPrefix(word, "crawl") ||
			slices.ContainsFunc(botEnds, func(end string) bool { return strings.HasSuffix(word, end) }))
	})
}

// isBare reports whether a header does not name its system in parentheses. All browsers
// do, except for those of old phones, which name their Java profile instead.
func isBare(header string) bool {
	return !strings.Contains(header, "(") && !strings.Contains(header, "midp")
}

// isCompatible reports whether a header contains the word compatible, as those of
// programs do. Among browsers, only old ones used it.
func isCompatible(header string) bool {
	return strings.Contains(header, "compatible;") &&
		!slices.ContainsFunc([]string{"msie", "konqueror", "netfront"}, func(name string) bool { return strings.Contains(header, name) })
}

// withoutDevice returns a lower-case header without names of devices, which may contain
// anything: there are phones by CUBOT, and one is called M bot 60. They stand between
// the word android and the end of its parentheses, and in the part that Facebook's apps
// add. Bots write their names there too, but also the word compatible or an address.
func withoutDevice(header string) string {
	header = cutBetween(header, "android", ")")
	return cutBetween(header, "[fb", "]")
}

// cutBetween cuts the text from one marker up to the next other marker out of a header,
// unless that text is a bot's.
func cutBetween(header, from, to string) string {
	var kept strings.Builder
	for {
		before, rest, found := strings.Cut(header, from)
		kept.WriteString(before)
		if !found {
			return kept.String()
		}
		device := rest
		if i := strings.Index(rest, to); i >= 0 {
			device = rest[:i]
		}
		if header = rest[len(device):]; strings.Contains(device, "compatible") || strings.Contains(device, "://") {
			kept.WriteString(" " + device)
		}
	}
}
