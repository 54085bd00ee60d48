package worker

import (
	"slices"
	"strings"
)

// tools are clients that are no browser, by words of their lower-case header,
// each with the name it is reported by. Parsers of browsers miss them. The more
// special come first.
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

// apps fetch previews of links that were sent in them, under a header that begins
// with their name. That of the browser inside of such an app may name it too,
// but further behind.
var apps = []struct{ words, name string }{
	{"whatsapp", "WhatsApp"},
	{"viber", "Viber"},
}

// toolOf returns the name of the tool that a lower-case header is of, "" if it is
// of none that is known.
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

// botEnds are the ends of words that tell a bot which tools do not name.
var botEnds = []string{
	"bot", "bots", "crawler", "crawlers", "spider", "spiders", "slurp", "scraper", "archiver", "preview", "previewer",
	"monitor", "monitoring", "probe", "exporter", "fetcher", "checker", "validator", "scanner", "indexer",
}

// isBot reports whether a lower-case header is of a program and not of a person's
// browser, so far as its words tell.
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

// isBare reports whether a header says nothing of the system that it comes from,
// as all browsers do, in parentheses: all but those of old phones, which name
// their profile of Java.
func isBare(header string) bool {
	return !strings.Contains(header, "(") && !strings.Contains(header, "midp")
}

// isCompatible reports whether a header calls its sender compatible, as programs
// do. Of browsers, only old ones did.
func isCompatible(header string) bool {
	return strings.Contains(header, "compatible;") &&
		!slices.ContainsFunc([]string{"msie", "konqueror", "netfront"}, func(name string) bool { return strings.Contains(header, name) })
}

// withoutDevice returns a lower-case header without the names of devices, which
// are anything: there are phones by CUBOT, and one is an M bot 60. They stand
// behind the word android up to the end of its parentheses, and in what
// Facebook's apps add. Bots stand there too, but call themselves compatible or
// give an address.
func withoutDevice(header string) string {
	header = cutBetween(header, "android", ")")
	return cutBetween(header, "[fb", "]")
}

// cutBetween takes out of a header what begins with one mark and ends before
// another, unless a bot speaks there.
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
