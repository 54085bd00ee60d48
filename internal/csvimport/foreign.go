package csvimport

import "github.com/signpost/signpost/internal/links"

// foreign are the link formats of other shorteners, without what ofLinks adds. Beware: a
// column named "link" has the short URL in files of Bitly and Dub, one named "source" has
// the code in those of YOURLS, and one named "target" has the destination in those of
// Kutt and YOURLS.
//
// Not all of them are equally certain. The formats of Shlink and YOURLS were read from
// the code that writes or reads such files: Shlink's importer and the export of its web
// client (which separated tags by commas once and by pipes now), YOURLS' plugins
// (import-export, bulk import) and the columns of its table. Dub's follows published
// descriptions; the code of its exporter was read too, except for the labels of its
// columns. Those of Bitly, Short.io and Kutt are best effort, after the names in their
// APIs.
var foreign = []format{
	{
		name: "shlink", marks: []string{"longurl", "shortcode"},
		columns: map[string]string{
			"longurl": colOriginalURL, "shortcode": colShortCode, "title": colTitle, "tags": colTags,
			"createdat": colCreatedAt, "datecreated": colCreatedAt, "visits": colImportedClicks,
			"visitscount": colImportedClicks, "validuntil": colExpiresAt, "forwardquery": colForwardQuery,
		},
		ignored:  []string{"domain", "shorturl"},
		expected: []string{"Long URL", "Short code", "Domain", "Title", "Tags"},
	},
	{
		name: "dub", marks: []string{"shortlink", "destinationurl"},
		columns: map[string]string{
			"shortlink": colShortURL, "destinationurl": colOriginalURL, "title": colTitle, "tags": colTags,
			"clicks": colImportedClicks, "createdat": colCreatedAt, "updatedat": colUpdatedAt,
			"expiresat": colExpiresAt,
		},
		ignored:  []string{"description", "leads", "conversions", "sales", "archived", "id", "domain", "key"},
		expected: []string{"Short link", "Destination URL", "Clicks", "Created at", "Tags"},
	},
	bitly("destinationurl", "Link", "Custom Link", "Destination URL", "Title", "Tags"),
	bitly("longurl", "link", "long_url", "title", "created_at", "tags"),
	{
		name: "yourls", marks: []string{"keyword", "url"},
		columns: map[string]string{
			"keyword": colShortCode, "url": colOriginalURL, "title": colTitle,
			"timestamp": colCreatedAt, "clicks": colImportedClicks,
		},
		ignored:  []string{"ip"},
		expected: []string{"keyword", "url", "title", "timestamp", "ip", "clicks"},
	},
	{
		name: "yourls-plugin", marks: []string{"source", "target"},
		columns:  map[string]string{"source": colSlug, "target": colOriginalURL, "hits": colImportedClicks},
		expected: []string{"source", "target", "hits"},
	},
	{
		name: "kutt", marks: []string{"address", "target"},
		columns: map[string]string{
			"address": colShortCode, "target": colOriginalURL, "description": colTitle,
			"visitcount": colImportedClicks, "createdat": colCreatedAt, "updatedat": colUpdatedAt,
			"expirein": colExpiresAt,
		},
		ignored:  []string{"id", "banned", "password", "domain", "domainid", "link"},
		expected: []string{"address", "target", "description", "visit_count", "created_at"},
	},
	{
		name: "shortio", marks: []string{"originalurl", "path"},
		columns: map[string]string{
			"originalurl": colOriginalURL, "path": colSlug, "title": colTitle, "tags": colTags,
			"createdat": colCreatedAt, "updatedat": colUpdatedAt, "expiresat": colExpiresAt,
			"clicks": colImportedClicks,
		},
		ignored:  []string{"id", "idstring", "shorturl", "secureshorturl", "domainid", "archived"},
		expected: []string{"originalURL", "path", "title", "tags", "createdAt"},
	},
	{
		name: "yourls-list", headless: true,
		columns:  map[string]string{"longurl": colOriginalURL, "keyword": colShortCode, "title": colTitle},
		expected: []string{"a long URL", "optionally a keyword", "optionally a title"},
	},
}

func bitly(target string, expected ...string) format {
	return format{
		name: "bitly", marks: []string{"link", target},
		columns: map[string]string{
			"link": colShortURL, "customlink": colCustomURL, "custombitlink": colCustomURL,
			"destinationurl": colOriginalURL, "longurl": colOriginalURL, "title": colTitle, "tags": colTags,
			"createdat": colCreatedAt, "datecreated": colCreatedAt, "createddate": colCreatedAt,
			"clicks": colImportedClicks, "totalclicks": colImportedClicks,
		},
		ignored: []string{"id", "references", "archived"}, expected: expected,
	}
}

// headless reads the first record of a file as a link of a list without a
// header. It is one only if it begins with a URL, which no header does.
func headless(kind Kind, fields []string, name string) (match, bool) {
	list := []string{colOriginalURL, colShortCode, colTitle}
	for len(fields) > 1 && fields[len(fields)-1] == "" { // surplus cells, or missing ones
		fields = fields[:len(fields)-1]
	}
	if kind != KindLinks || len(fields) > len(list) {
		return match{}, false
	}
	if _, err := links.CleanTarget(fields[0], links.Hosts{}); err != nil {
		return match{}, false
	}
	for i := range formats {
		if f := &formats[i]; f.headless && (name == "" || name == f.name) {
			return match{format: f, columns: list, known: len(fields)}, true
		}
	}
	return match{}, false
}
