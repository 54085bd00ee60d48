package worker

import (
	"fmt"
	"strings"

	"github.com/maypok86/otter/v2"
	"github.com/mileusna/useragent"

	"github.com/signpost/signpost/internal/clicks"
)

const (
	agentsCached  = 8192 // at most clicks.MaxUserAgent bytes each
	agentNameMax  = 64   // bytes; names are taken from what a client sent
	deviceBot     = "bot"
	deviceMobile  = "mobile"
	deviceTablet  = "tablet"
	deviceDesktop = "desktop"
)

// agent is what a User-Agent header says. "" is unknown. Shared and never
// changed.
type agent struct {
	bot                 bool
	browser, os, device string
	// columns are browser, os and device as a binary COPY takes them.
	columns []byte
}

// agents parses User-Agent headers and remembers the most used ones: parsing
// takes microseconds, and a batch holds few different ones. Safe for concurrent
// use.
type agents struct {
	known *otter.Cache[string, *agent]
	parse func(header string) *agent
}

func newAgents() (*agents, error) {
	known, err := otter.New(&otter.Options[string, *agent]{MaximumSize: agentsCached})
	if err != nil {
		return nil, fmt.Errorf("set up user agent cache: %w", err)
	}
	return &agents{known: known, parse: parseAgent}, nil
}

// get returns what header says. header may be kept.
func (a *agents) get(header string) *agent {
	if known, ok := a.known.GetIfPresent(header); ok {
		return known
	}
	// The header shares the memory of its whole batch.
	header = strings.Clone(header)
	parsed := a.parse(header)
	a.known.Set(header, parsed)
	return parsed
}

// tools are clients that are no browser, by a token of their lower-case header,
// each with the name it is reported by. Parsers of browsers miss them. The more
// special come first.
var tools = []struct{ token, name string }{
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
	{"whatsapp", "WhatsApp"},
	{"slackbot", "Slackbot"},
	{"slack-imgproxy", "Slackbot"},
	{"telegrambot", "TelegramBot"},
	{"discordbot", "Discordbot"},
	{"twitterbot", "Twitterbot"},
	{"linkedinbot", "LinkedInBot"},
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
	{"curl/", "curl"},
	{"libcurl", "curl"},
	{"wget", "Wget"},
	{"python-requests", "python-requests"},
	{"python-urllib", "Python-urllib"},
	{"python-httpx", "python-httpx"},
	{"aiohttp", "aiohttp"},
	{"scrapy", "Scrapy"},
	{"go-http-client", "Go-http-client"},
	{"fasthttp", "fasthttp"},
	{"apache-httpclient", "Apache-HttpClient"},
	{"java/", "Java"},
	{"libwww-perl", "libwww-perl"},
	{"guzzlehttp", "Guzzle"},
	{"node-fetch", "node-fetch"},
	{"axios/", "axios"},
	{"undici", "undici"},
	{"postmanruntime", "Postman"},
	{"insomnia", "Insomnia"},
	{"httpie", "HTTPie"},
	{"powershell", "PowerShell"},
	{"uptimerobot", "UptimeRobot"},
	{"pingdom", "Pingdom"},
	{"statuscake", "StatusCake"},
	{"feedfetcher", "Feedfetcher"},
	{"feedly", "Feedly"},
	{"w3c_validator", "W3C Validator"},
}

// botWords mark a bot that tools does not name.
var botWords = []string{"bot", "crawl", "spider", "slurp", "scraper", "link preview", "urlpreview", "monitoring", "archiver"}

func parseAgent(header string) *agent {
	a := readAgent(header)
	if a.bot {
		a.device = deviceBot
	}
	for _, name := range []string{a.browser, a.os, a.device} {
		a.columns = appendText(a.columns, name)
	}
	return &a
}

func readAgent(header string) agent {
	if header == "" {
		return agent{bot: true} // every browser sends one
	}
	// A brand of phones, not a robot.
	lower := strings.ReplaceAll(strings.ToLower(header), "cubot", "")
	for _, t := range tools {
		if strings.Contains(lower, t.token) {
			return agent{bot: true, browser: t.name}
		}
	}
	ua := useragent.Parse(header)
	a := agent{bot: ua.Bot || hasAny(lower, botWords), browser: bounded(ua.Name), os: bounded(ua.OS)}
	switch {
	case ua.Tablet:
		a.device = deviceTablet
	case ua.Mobile:
		a.device = deviceMobile
	case ua.Desktop:
		a.device = deviceDesktop
	}
	return a
}

func hasAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

func bounded(name string) string { return strings.TrimSpace(clicks.Clean(name, agentNameMax)) }
