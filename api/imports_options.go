package api

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/csvimport"
)

// maxMapping bounds the columns that one upload may map.
const maxMapping = 100

// uploadOptions are what the query of an upload says.
type uploadOptions struct {
	kind   csvimport.Kind
	owner  *int64 // of links whose file names none; nil for nobody
	policy csvimport.Policy
	dryRun bool
	split  csvimport.SplitOptions
}

// readUploadOptions reads the query of an upload of kind. All that is wrong with
// it by itself is reported at once; whether the format and the mapping suit the
// file is found when that is read.
func readUploadOptions(c *fiber.Ctx, kind csvimport.Kind) (uploadOptions, error) {
	o := uploadOptions{kind: kind, split: csvimport.SplitOptions{
		Format: strings.Clone(c.Query("format")), Timezone: strings.Clone(c.Query("timezone")),
	}}
	var wrong []FieldError
	note := func(field string, err error) {
		if err != nil {
			wrong = append(wrong, FieldError{Field: field, Message: err.Error()})
		}
	}
	var err error
	o.owner, err = ownerParam(c.Query("user_id"))
	note("user_id", err)
	o.policy, err = csvimport.ParsePolicy(c.Query("on_conflict"), kind)
	note("on_conflict", err)
	o.dryRun, err = boolParam(c.Query("dry_run"))
	note("dry_run", err)
	o.split.Mapping, err = mappingParam(c.Context().QueryArgs().PeekMulti("mapping"))
	note("mapping", err)
	o.split.Encoding, err = csvimport.ParseEncoding(c.Query("encoding"))
	note("encoding", err)
	o.split.Escape, err = escapeParam(c.Query("escape"))
	note("escape", err)
	note("timezone", csvimport.CheckTimezone(o.split.Timezone))
	if len(wrong) > 0 {
		return o, invalid(wrong...)
	}
	return o, nil
}

// ownerParam returns the id of who owns the links of a file that names no
// owner, nil if the query names nobody.
func ownerParam(value string) (*int64, error) {
	if value == "" {
		return nil, nil
	}
	id, err := strconv.ParseInt(value, 10, 64)
	if err != nil || id < 1 || id > csvimport.MaxID {
		return nil, errors.New("must be the id of a user")
	}
	return &id, nil
}

func escapeParam(value string) (string, error) {
	switch value {
	case "", csvimport.EscapeNone, csvimport.EscapeBackslash:
		return strings.Clone(value), nil
	}
	return "", fmt.Errorf("must be %s or %s", csvimport.EscapeNone, csvimport.EscapeBackslash)
}

func boolParam(value string) (bool, error) {
	switch value {
	case "", "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	}
	return false, errors.New("must be true or false")
}

// mappingParam reads columns of the file and what they stand for, as name:column.
// The names of a file's columns may hold anything, those of ours no colon.
func mappingParam(values [][]byte) (map[string]string, error) {
	if len(values) > maxMapping {
		return nil, fmt.Errorf("may be given %d times at most", maxMapping)
	}
	mapping := make(map[string]string, len(values))
	for _, value := range values {
		pair := string(value)
		i := strings.LastIndexByte(pair, ':')
		if i < 1 {
			return nil, errors.New("must be a column of the file, a colon and what it stands for, such as Goes to:original_url, or nothing to ignore it")
		}
		name := pair[:i]
		if _, twice := mapping[name]; twice {
			return nil, errors.New("names a column twice")
		}
		mapping[name] = pair[i+1:]
	}
	return mapping, nil
}
