package visits

import (
	"slices"
	"strings"
)

// Rules is the version of the rules in this file. Each event stores the version by which
// it got its kind, so every change of a rule makes it one more. `signpost clicks
// reclassify` applies a new version to clicks that were counted before.
const Rules int16 = 1

// program is a client that is not a browser.
type program struct {
	words string // whole words that its lower-case User-Agent header contains
	name  string // the browser that is reported for it
	kind  Kind
}

// programs are tried in this order: of those that are named in one header, the one that
// says most about the visit comes first.
var programs = []program{
	// Messengers and networks fetch a card of a link that somebody posted.
	{"facebookexternalhit", "facebookexternalhit", Preview},
	{"facebookcatalog", "facebookcatalog", Preview},
	{"facebookplatform", "facebookplatform", Preview},
	{"slackbot", "Slackbot", Preview},
	{"slack-imgproxy", "Slackbot", Preview},
	{"telegrambot", "TelegramBot", Preview},
	{"discordbot", "Discordbot", Preview},
	{"twitterbot", "Twitterbot", Preview},
	{"linkedinbot", "LinkedInBot", Preview},
	{"bingpreview", "BingPreview", Preview},
	{"microsoftpreview", "MicrosoftPreview", Preview},
	{"skypeuripreview", "SkypeUriPreview", Preview},
	{"snap url preview service", "Snap URL Preview", Preview},
	{"mattermost-bot", "Mattermost", Preview},
	{"kakaotalk-scrap", "KakaoTalk", Preview},
	{"line-poker", "LINE", Preview},
	{"summalybot", "Misskey", Preview},
	{"misskey", "Misskey", Preview},
	{"mastodon", "Mastodon", Preview},
	{"pleroma", "Pleroma", Preview},
	{"akkoma", "Akkoma", Preview},
	{"friendica", "Friendica", Preview},
	{"bluesky cardyb", "Bluesky", Preview},
	{"vkshare", "vkShare", Preview},
	{"embedly", "Embedly", Preview},
	{"iframely", "Iframely", Preview},
	{"notionembedder", "Notion", Preview},
	{"discourse forum onebox", "Discourse", Preview},
	{"flipboardproxy", "Flipboard", Preview},
	{"steamchaturllookup", "Steam", Preview},
	{"keybasebot", "Keybase", Preview},
	{"groupmebot", "GroupMe", Preview},
	{"quora-bot", "Quora", Preview},
	{"vkrobot", "VK", Preview},
	{"odklbot", "OK", Preview},
	{"pinterestbot", "Pinterest", Preview},
	{"evernoterichlinkbot", "Evernote", Preview},
	{"dingtalkbot-linkservice", "DingTalk", Preview},
	{"xing bot", "XING", Preview},
	{"peekbot", "GG", Preview},
	{"meta-externalhit", "Meta-ExternalHit", Preview},
	{"meta-externalfetcher", "meta-externalfetcher", Preview},
	{"github-camo", "GitHub", Preview},
	{"google-pagerenderer", "Google-PageRenderer", Preview},
	{"googleimageproxy", "GoogleImageProxy", Preview},
	{"yahoomailproxy", "YahooMailProxy", Preview},
	{"xing-contenttabreceiver", "XING", Preview},
	// Office looks at a link before it hands it to the browser.
	{"ms-office", "Microsoft Office", Preview},
	{"microsoft office", "Microsoft Office", Preview},

	// Monitors ask again and again whether a link works.
	{"uptimerobot", "UptimeRobot", Monitor},
	{"uptime-kuma", "Uptime Kuma", Monitor},
	{"better uptime bot", "Better Uptime", Monitor},
	{"better stack", "Better Stack", Monitor},
	{"pingdom", "Pingdom", Monitor},
	{"pingdomtms", "Pingdom", Monitor},
	{"statuscake", "StatusCake", Monitor},
	{"site24x7", "Site24x7", Monitor},
	{"newrelicpinger", "New Relic", Monitor},
	{"newrelicsynthetics", "New Relic", Monitor},
	{"datadog", "Datadog", Monitor},
	{"datadogsynthetics", "Datadog", Monitor},
	{"dynatracesynthetic", "Dynatrace", Monitor},
	{"ruxitsynthetic", "Dynatrace", Monitor},
	{"catchpoint", "Catchpoint", Monitor},
	{"hetrixtools", "HetrixTools", Monitor},
	{"freshping", "Freshping", Monitor},
	{"nodeping", "NodePing", Monitor},
	{"updown.io", "updown.io", Monitor},
	{"checkly", "Checkly", Monitor},
	{"montastic", "Montastic", Monitor},
	{"montastic-monitor", "Montastic", Monitor},
	{"gatus", "Gatus", Monitor},
	{"zabbix", "Zabbix", Monitor},
	{"nagios", "Nagios", Monitor},
	{"nagios-plugins", "Nagios", Monitor},
	{"check_http", "check_http", Monitor},
	{"icinga", "Icinga", Monitor},
	{"prometheus", "Prometheus", Monitor},
	{"blackbox exporter", "Blackbox Exporter", Monitor},
	{"blackbox-exporter", "Blackbox Exporter", Monitor},
	{"kube-probe", "kube-probe", Monitor},
	{"elb-healthchecker", "ELB-HealthChecker", Monitor},
	{"amazon-route53-health-check-service", "Route 53", Monitor},
	{"amazon route 53 health check service", "Route 53", Monitor},
	{"cloudflare-healthchecks", "Cloudflare", Monitor},
	{"cloudflare-traffic-manager", "Cloudflare", Monitor},
	{"googlehc", "GoogleHC", Monitor},
	{"googlestackdrivermonitoring-uptimechecks", "Google Cloud", Monitor},
	{"haproxy", "HAProxy", Monitor},
	{"ptst", "WebPageTest", Monitor},
	{"appinsights", "Application Insights", Monitor},
	{"thousandeyes", "ThousandEyes", Monitor},
	{"siteimprove.com", "Siteimprove", Monitor},
	{"gomezagent", "Gomez", Monitor},
	{"dareboost", "DareBoost", Monitor},
	{"silktide", "Silktide", Monitor},
	{"solarwinds", "SolarWinds", Monitor},

	// Crawlers of search engines, of models and of archives, and remote-controlled browsers.
	{"googlebot", "Googlebot", Bot},
	{"googleother", "GoogleOther", Bot},
	{"google-inspectiontool", "Google-InspectionTool", Bot},
	{"google-extended", "Google-Extended", Bot},
	{"google-safety", "Google-Safety", Bot},
	{"google-read-aloud", "Google-Read-Aloud", Bot},
	{"google favicon", "Google Favicon", Bot},
	{"adsbot-google", "AdsBot-Google", Bot},
	{"mediapartners-google", "Mediapartners-Google", Bot},
	{"feedfetcher-google", "Feedfetcher", Bot},
	{"feedfetcher", "Feedfetcher", Bot},
	{"bingbot", "Bingbot", Bot},
	{"yandexbot", "YandexBot", Bot},
	{"duckduckbot", "DuckDuckBot", Bot},
	{"baiduspider", "Baiduspider", Bot},
	{"applebot", "Applebot", Bot},
	{"gptbot", "GPTBot", Bot},
	{"oai-searchbot", "OAI-SearchBot", Bot},
	{"chatgpt-user", "ChatGPT-User", Bot},
	{"claudebot", "ClaudeBot", Bot},
	{"claude-user", "Claude-User", Bot},
	{"claude-web", "Claude-Web", Bot},
	{"anthropic-ai", "anthropic-ai", Bot},
	{"perplexitybot", "PerplexityBot", Bot},
	{"perplexity-user", "Perplexity-User", Bot},
	{"mistralai-user", "MistralAI-User", Bot},
	{"cohere-ai", "cohere-ai", Bot},
	{"amazonbot", "Amazonbot", Bot},
	{"bytespider", "Bytespider", Bot},
	{"petalbot", "PetalBot", Bot},
	{"ccbot", "CCBot", Bot},
	{"ahrefsbot", "AhrefsBot", Bot},
	{"semrushbot", "SemrushBot", Bot},
	{"meta-externalagent", "meta-externalagent", Bot},
	{"facebot", "Facebot", Bot},
	{"redditbot", "redditbot", Bot},
	{"headlesschrome", "Headless Chrome", Bot},
	{"phantomjs", "PhantomJS", Bot},
	{"selenium", "Selenium", Bot},
	{"puppeteer", "Puppeteer", Bot},
	{"playwright", "Playwright", Bot},
	{"chrome-lighthouse", "Lighthouse", Bot},
	{"google page speed", "PageSpeed", Bot},
	{"gtmetrix", "GTmetrix", Bot},
	{"feedly", "Feedly", Bot},
	{"w3c_validator", "W3C Validator", Bot},
	{"wayback", "Wayback Machine", Bot},
	{"archive.org", "archive.org", Bot},
	{"virustotal", "VirusTotal", Bot},
	{"urlscan", "urlscan", Bot},
	{"zgrab", "zgrab", Bot},
	{"nmap", "Nmap", Bot},
	{"openvas", "OpenVAS", Bot},
	{"datanyze", "Datanyze", Bot},
	{"nikto", "Nikto", Bot},
	{"masscan", "masscan", Bot},
	{"scrapy", "Scrapy", Bot},

	// Libraries and commands that fetch addresses for a program.
	{"curl", "curl", Tool},
	{"libcurl", "curl", Tool},
	{"pycurl", "curl", Tool},
	{"wget", "Wget", Tool},
	{"aria2", "aria2", Tool},
	{"python-requests", "python-requests", Tool},
	{"python-urllib", "Python-urllib", Tool},
	{"python-urllib3", "Python-urllib", Tool},
	{"python-httpx", "python-httpx", Tool},
	{"aiohttp", "aiohttp", Tool},
	{"go-http-client", "Go-http-client", Tool},
	{"go-resty", "go-resty", Tool},
	{"fasthttp", "fasthttp", Tool},
	{"okhttp", "okhttp", Tool},
	{"dalvik", "Dalvik", Tool},
	{"cfnetwork", "CFNetwork", Tool},
	{"alamofire", "Alamofire", Tool},
	{"apache-httpclient", "Apache-HttpClient", Tool},
	{"apache-httpasyncclient", "Apache-HttpClient", Tool},
	{"java-http-client", "Java", Tool},
	{"ktor-client", "Ktor", Tool},
	{"dart:io", "Dart", Tool},
	{"libwww-perl", "libwww-perl", Tool},
	{"guzzlehttp", "Guzzle", Tool},
	{"symfony httpclient", "Symfony", Tool},
	{"node-fetch", "node-fetch", Tool},
	{"axios", "axios", Tool},
	{"undici", "undici", Tool},
	{"reqwest", "reqwest", Tool},
	{"faraday", "Faraday", Tool},
	{"http.rb", "http.rb", Tool},
	{"restsharp", "RestSharp", Tool},
	{"postmanruntime", "Postman", Tool},
	{"insomnia", "Insomnia", Tool},
	{"httpie", "HTTPie", Tool},
	{"powershell", "PowerShell", Tool},
	{"windowspowershell", "PowerShell", Tool},
	{"winhttp", "WinHTTP", Tool},
	{"apachebench", "ApacheBench", Tool},
	{"jmeter", "JMeter", Tool},
}

// starts are programs whose header begins with their word. The header of a browser may
// have it too, but further behind: the browser inside a messenger names the messenger,
// and old phones name their Java.
var starts = []program{
	{"whatsapp", "WhatsApp", Preview},
	{"viber", "Viber", Preview},
	{"signal", "Signal", Preview},
	{"tumblr", "Tumblr", Preview},
	{"pinterest", "Pinterest", Preview},
	{"synapse", "Matrix", Preview},
	{"lemmy", "Lemmy", Preview},
	{"rocket.chat", "Rocket.Chat", Preview},
	{"java", "Java", Tool},
	{"lwp", "libwww-perl", Tool},
	{"got", "got", Tool},
	{"k6", "k6", Tool},
	// People read with browsers in a terminal, whose headers look like those of tools.
	{"lynx", "Lynx", Person},
	{"links", "Links", Person},
	{"elinks", "ELinks", Person},
	{"w3m", "w3m", Person},
	{"dillo", "Dillo", Person},
	{"netsurf", "NetSurf", Person},
}

// endings of words by which programs are recognized that are not named above.
var endings = []struct {
	of   []string
	kind Kind
}{
	{[]string{"preview", "previews", "previewer", "previewbot", "unfurl", "unfurler", "unfurlbot"}, Preview},
	{[]string{
		"monitor", "monitoring", "probe", "exporter", "checker", "check", "healthcheck", "healthchecks", "uptime", "uptimebot",
	}, Monitor},
	{[]string{
		"bot", "bots", "robot", "robots", "crawl", "crawler", "crawlers", "crawling", "spider", "spiders", "slurp", "scraper",
		"scraping", "archiver", "fetcher", "validator", "verifier", "scan", "scanner", "scanning", "indexer", "optimizer", "httpagent",
	}, Bot},
}

// systems are words of which the header of every browser has one, in lower case. A
// header without any is that of a program whose author gave it a name.
var systems = []string{
	"mozilla", "opera", "midp", "browser", "ucweb", "docomo", "kddi", "mmp", "profile", "wap", "obigo", "netfront", "msie", "symbian",
	"android", "iphone", "ipad", "ios", "watchos", "tvos", "hbbtv", "webkit", "gecko", "windows phone", "nintendo",
	"nokia", "blackberry", "samsung", "htc", "huawei",
}

// programOf returns the program that a lower-case header names, and whether it names
// one. header is the part without devices.
func programOf(header string) (program, bool) {
	for _, p := range programs {
		if hasWords(header, p.words) {
			return p, true
		}
	}
	for _, p := range starts {
		if rest, ok := strings.CutPrefix(header, p.words); ok && (rest == "" || !isWord(rest[0])) {
			return p, true
		}
	}
	return program{}, false
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

// kindOfWords returns the kind that the words of a lower-case header show, if it names
// no known program: Person, unless they show that a program sent it.
func kindOfWords(header, withoutDevice string) Kind {
	for word := range strings.FieldsFuncSeq(withoutDevice, func(r rune) bool { return r > '\x7f' || !isWord(byte(r)) }) {
		if word = strings.TrimRight(word, "0123456789"); word == "cubot" {
			continue
		}
		for _, e := range endings {
			if slices.ContainsFunc(e.of, func(end string) bool { return strings.HasSuffix(word, end) }) {
				return e.kind
			}
		}
		if strings.HasPrefix(word, "crawl") {
			return Bot
		}
	}
	switch {
	case isCompatible(header), hasMail(withoutDevice):
		return Bot
	case isBare(header):
		return Tool
	}
	return Person
}

// hasMail reports whether a header has an e-mail address, as those of programs do that
// say where to complain.
func hasMail(header string) bool {
	for {
		before, after, found := strings.Cut(header, "@")
		if !found {
			return false
		}
		domain, _, _ := strings.Cut(after, ".")
		if before != "" && isWord(before[len(before)-1]) && domain != "" && len(domain) < len(after) && !strings.ContainsAny(domain, " ;()/") {
			return true
		}
		header = after
	}
}

// isBare reports whether a header does not name its system in parentheses, as browsers
// do. Those of old phones name their Java profile instead.
func isBare(header string) bool {
	if !strings.Contains(header, "(") {
		return !strings.Contains(header, "midp")
	}
	return !slices.ContainsFunc(systems, func(word string) bool { return strings.Contains(header, word) })
}

// isCompatible reports whether a header contains the word compatible, as those of
// programs do. Among browsers, only old ones used it.
func isCompatible(header string) bool {
	return strings.Contains(header, "compatible;") &&
		!slices.ContainsFunc([]string{"msie", "konqueror", "netfront", "opera"}, func(name string) bool { return strings.Contains(header, name) })
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
