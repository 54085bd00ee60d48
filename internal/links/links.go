// Package links holds the rules of Signpost's codes, URLs and the fields
// around them: what the API and an import accept, in the same words.
//
// Every check returns nil or one of the package's Error values. Functions are
// pure and may be called concurrently.
package links

// An Error is a broken rule, said so that the message can follow a field's
// name in an answer to a user. Values are comparable: match with errors.Is.
type Error string

func (e Error) Error() string { return string(e) }

// Broken rules.
const (
	ErrCode         = Error("must be 1 to 64 letters, digits, - or _")
	ErrCodeReserved = Error("is reserved, choose another")

	ErrURLEmpty     = Error("must not be empty")
	ErrURLLength    = Error("must be at most 2048 bytes")
	ErrURLEncoding  = Error("must be valid UTF-8")
	ErrURLSpace     = Error("must not contain spaces")
	ErrURLControl   = Error("must not contain control characters")
	ErrURLBackslash = Error("must not contain backslashes")
	ErrURLScheme    = Error("must start with http:// or https://")
	ErrURLUserinfo  = Error("must not contain a user name or password before the host")
	ErrURLHost      = Error("must have a valid host")
	ErrURLPort      = Error("must have a port from 1 to 65535")
	ErrURLEscape    = Error("must not contain a % without two hexadecimal digits after it (write %25)")
	ErrURLOwn       = Error("must not be one of this service's own short links")

	ErrTitle          = Error("must be at most 255 characters without control characters, text direction ones included")
	ErrTagCount       = Error("must be at most 20 tags")
	ErrTag            = Error("must be tags of 1 to 50 characters without commas, pipes or control characters, text direction ones included")
	ErrRedirectStatus = Error("must be 301, 302, 307 or 308")

	ErrUsername = Error("must be 1 to 64 printable characters without spaces around them")
	ErrEmail    = Error("must be an e-mail address of at most 254 bytes, such as ann@example.com")
)
