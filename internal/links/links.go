// Package links holds the rules of Signpost's codes, targets and other fields of links
// and users. The API and imports share them, and the wording of their errors.
//
// Every check returns nil, one of the package's Error values, or a SchemeError, which
// is one of them with more detail. Functions are pure and may be called concurrently.
package links

// An Error is a broken rule, worded so that it can follow a field's name in an answer
// to a user. Values are comparable: match with errors.Is.
type Error string

func (e Error) Error() string { return string(e) }

// These are the rules that can be broken.
const (
	ErrCode         = Error("must be 1 to 255 bytes of letters and digits of any script, emoji and - _ . ~ + @ ! $, with slashes inside, but no segment that is . or ..")
	ErrCodeReserved = Error("is reserved, choose another")
	ErrCodeEnd      = Error("must not end in punctuation, which is taken off a link that was copied with its sentence")

	ErrTargetEmpty     = Error("must not be empty")
	ErrTargetLength    = Error("must be at most 8192 bytes, also once what a URL may not hold is percent-encoded")
	ErrTargetEncoding  = Error("must be valid UTF-8")
	ErrTargetControl   = Error("must not contain control characters, nor any that change the direction of text")
	ErrTargetBackslash = Error("must not contain backslashes before its query")
	ErrTargetScheme    = Error("must start with http:// or https://")
	ErrTargetOther     = Error("must start with http:// or https://, since links lead to http and https only")
	ErrTargetUserinfo  = Error("must not contain a user name or password before the host")
	ErrTargetHost      = Error("must have a valid host")
	ErrTargetPort      = Error("must have a port from 1 to 65535")
	ErrTargetOwn       = Error("must not be one of this service's own short links")

	ErrHost    = Error("must be a host name such as go.example.com, of at most 253 bytes, without scheme, port or path")
	ErrHostOwn = Error("must not be the host of PUBLIC_URL or one of PUBLIC_HOSTS")

	ErrTitle          = Error("must be at most 255 characters without control characters, text direction ones included")
	ErrTagCount       = Error("must be at most 20 tags")
	ErrTag            = Error("must be tags of 1 to 50 characters without commas, pipes or control characters, text direction ones included")
	ErrRedirectStatus = Error("must be 301, 302, 307 or 308")

	ErrUsername = Error("must be 1 to 64 printable characters without spaces around them")
	ErrEmail    = Error("must be an e-mail address of at most 254 bytes, such as ann@example.com")
)
