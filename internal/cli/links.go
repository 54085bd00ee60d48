package cli

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/signpost/signpost/internal/client"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/qr"
)

const linksHelp = `Work with short links on a server.

LINK is a short URL, a short code or an id. On a terminal, lists are tables; in a
pipe, they have a line for each link with its fields separated by tabs, and no
header. With --json, each link is one line of JSON, as the API answers it.

In the folder in which "signpost dev" runs, neither an address nor a token is
needed.

Exit codes: 0 done, 1 failed, 2 not confirmed, 3 no such link, 4 no token, or one
that may not do this, 5 the short code is taken.`

func linksCommand(environ []string) *cobra.Command {
	group := commandGroup("links", "Create, find, change and draw short links",
		linksCreateCommand(environ), linksListCommand(environ), linksShowCommand(environ), linksChangeCommand(environ),
		linksSwitchCommand(environ, "off", "Switch links off: they answer 410 until they are on again", false),
		linksSwitchCommand(environ, "on", "Switch links on", true),
		linksDeleteCommand(environ), linksQRCommand(environ))
	group.Long = linksHelp
	return group
}

// linksFlags are the flags of every command for links.
type linksFlags struct {
	remoteFlags
	json bool
}

func (f *linksFlags) add(flags *pflag.FlagSet) {
	f.remoteFlags.add(flags)
	flags.BoolVar(&f.json, "json", false, "print each link as one line of JSON")
}

// run returns the function of a command that talks to a server. Errors of the server get
// exit codes of their own.
func (f *linksFlags) run(environ []string, fn func(*cobra.Command, *client.Client, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		remote, err := f.client(environ)
		if errors.Is(err, errNoToken) {
			return &codedError{err, exitForbidden}
		}
		if err != nil {
			return err
		}
		defer remote.Close()
		return withCode(fn(cmd, remote, args))
	}
}

// The exit codes of commands for links, beside 0 and 1.
const (
	exitUnconfirmed = 2
	exitNoLink      = 3
	exitForbidden   = 4
	exitTaken       = 5
)

// codedError is an error with an exit code.
type codedError struct {
	error
	code int
}

func (e *codedError) Unwrap() error { return e.error }

// withCode gives an answer of the server its exit code.
func withCode(err error) error {
	code := map[int]int{
		http.StatusNotFound: exitNoLink, http.StatusUnauthorized: exitForbidden,
		http.StatusForbidden: exitForbidden, http.StatusConflict: exitTaken,
	}[client.Status(err)]
	if code == 0 {
		return err
	}
	return &codedError{err, code}
}

// find returns the link that an argument names.
func find(cmd *cobra.Command, remote *client.Client, arg string) (client.Link, error) {
	host, code, err := readLink(arg)
	if err != nil {
		return client.Link{}, err
	}
	link, err := remote.FindLink(cmd.Context(), host, code)
	if err != nil {
		return link, fmt.Errorf("%s: %w", arg, err)
	}
	return link, nil
}

// changed prints a link that was made or changed: its short URL alone, so that other
// commands can go on with it.
func (f *linksFlags) changed(cmd *cobra.Command, link client.Link) error {
	text := []byte(link.ShortURL)
	if f.json {
		text = link.JSON
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
	return err
}

// fieldFlags are the flags for the fields of a link.
type fieldFlags struct {
	code, title, domain, expires string
	tags                         []string
	user                         int64
	status                       int
	forward                      bool
}

func (f *fieldFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.code, "code", "", "short code (default a random one)")
	flags.StringVar(&f.title, "title", "", "title; an empty one is none")
	flags.StringArrayVar(&f.tags, "tag", nil, "tag; may be repeated")
	flags.StringVar(&f.domain, "domain", "", "host of the short URL (default the main one)")
	flags.StringVar(&f.expires, "expires", "", "when the link ends: a time, a date, a duration such as 90d, or never")
	flags.Int64Var(&f.user, "user", 0, "id of the user who owns the link (default $SIGNPOST_USER, or the only user)")
	flags.IntVar(&f.status, "redirect-status", 302, "301, 302, 307 or 308")
	flags.BoolVar(&f.forward, "forward-query", false, "add the query of a visit to the target's")
}

// fields returns the fields of the API that were given.
func (f *fieldFlags) fields(flags *pflag.FlagSet, now time.Time) (map[string]any, error) {
	fields := map[string]any{}
	for name, field := range map[string]struct {
		name  string
		value any
	}{
		"code": {"short_code", f.code}, "title": {"title", f.title}, "domain": {"domain", f.domain}, "user": {"user_id", f.user},
		"redirect-status": {"redirect_status", f.status}, "forward-query": {"forward_query", f.forward},
		"tag": {"tags", slices.DeleteFunc(slices.Clone(f.tags), func(tag string) bool { return tag == "" })},
	} {
		if flags.Changed(name) {
			fields[field.name] = field.value
		}
	}
	if f.expires != "" {
		at, err := parseEnd(f.expires, now)
		if err != nil {
			return nil, err
		}
		fields["expires_at"] = at
	}
	return fields, nil
}

// parseEnd reads the time at which a link ends: a time, a date (its beginning, on this
// machine), or a duration from now. It returns nil for never.
func parseEnd(text string, now time.Time) (*time.Time, error) {
	if text == "never" {
		return nil, nil //nolint:nilnil // a link that never ends has no such time
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return &at, nil
	}
	if at, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return &at, nil
	}
	if at, err := parseExpiry(text, now); err == nil {
		return at, nil
	}
	return nil, fmt.Errorf("--expires must be a time such as 2030-01-31T12:00:00Z, a date, a duration such as 90d, or never, not %q", text)
}

func linksCreateCommand(environ []string) *cobra.Command {
	var flags linksFlags
	var given fieldFlags
	var copied bool
	cmd := &cobra.Command{
		Use:   "create URL",
		Short: "Create a link and print its short URL",
		Example: `  signpost links create https://example.com/sale --code spring --tag sale
  signpost links create https://example.com/menu.pdf --expires 90d --copy`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = flags.run(environ, func(cmd *cobra.Command, remote *client.Client, args []string) error {
		fields, err := given.fields(cmd.Flags(), time.Now())
		if err != nil {
			return err
		}
		fields["original_url"] = args[0]
		if fields["user_id"] == nil {
			if fields["user_id"], err = findOwner(cmd, remote, environ); err != nil {
				return err
			}
		}
		link, err := remote.CreateLink(cmd.Context(), fields, rand.Text())
		if err != nil {
			return fmt.Errorf("create the link: %w", err)
		}
		if err := flags.changed(cmd, link); err != nil || !copied {
			return err
		}
		return copyText(cmd.Context(), environ, cmd.ErrOrStderr(), link.ShortURL)
	})
	flags.add(cmd.Flags())
	given.add(cmd.Flags())
	cmd.Flags().BoolVar(&copied, "copy", false, "put the short URL into the clipboard too")
	return cmd
}

// findOwner returns who owns the links of this person: the user that SIGNPOST_USER names,
// or the only one there is.
func findOwner(cmd *cobra.Command, remote *client.Client, environ []string) (int64, error) {
	if text := variable(environ, "SIGNPOST_USER"); text != "" {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("SIGNPOST_USER must be the id of a user, not %q", text)
		}
		return id, nil
	}
	id, err := remote.OnlyUser(cmd.Context())
	if err == nil && id == 0 {
		err = errors.New("there is not just one user: say who owns the link with --user ID or SIGNPOST_USER")
	}
	return id, err
}

func linksChangeCommand(environ []string) *cobra.Command {
	var flags linksFlags
	var given fieldFlags
	var target string
	cmd := &cobra.Command{
		Use:   "change LINK",
		Short: "Change a link and print its short URL",
		Example: `  signpost links change spring --url https://example.com/summer
  signpost links change 17 --tag sale --tag summer --expires never`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = flags.run(environ, func(cmd *cobra.Command, remote *client.Client, args []string) error {
		fields, err := given.fields(cmd.Flags(), time.Now())
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("url") {
			fields["original_url"] = target
		}
		if len(fields) == 0 {
			return errors.New("say what to change, such as --url https://example.com/summer")
		}
		return flags.change(cmd, remote, args, fields)
	})
	flags.add(cmd.Flags())
	given.add(cmd.Flags())
	cmd.Flags().StringVar(&target, "url", "", "where the link leads")
	cmd.Flags().Lookup("tag").Usage = "tag in place of all there were; may be repeated, an empty one is none"
	for _, name := range []string{"code", "domain", "user"} { // they have no defaults here
		f := cmd.Flags().Lookup(name)
		f.Usage, _, _ = strings.Cut(f.Usage, " (")
	}
	return cmd
}

// change changes links, one after the other, and prints each. It stops at the first that
// fails.
func (f *linksFlags) change(cmd *cobra.Command, remote *client.Client, args []string, fields map[string]any) error {
	for _, arg := range args {
		link, err := find(cmd, remote, arg)
		if err != nil {
			return err
		}
		if link, err = remote.ChangeLink(cmd.Context(), link, fields); err != nil {
			return fmt.Errorf("change %s: %w", arg, err)
		}
		if err := f.changed(cmd, link); err != nil {
			return err
		}
	}
	return nil
}

func linksSwitchCommand(environ []string, name, short string, on bool) *cobra.Command {
	var flags linksFlags
	cmd := &cobra.Command{
		Use: name + " LINK...", Short: short,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = flags.run(environ, func(cmd *cobra.Command, remote *client.Client, args []string) error {
		return flags.change(cmd, remote, args, map[string]any{"is_active": on})
	})
	flags.add(cmd.Flags())
	return cmd
}

func linksDeleteCommand(environ []string) *cobra.Command {
	var flags linksFlags
	var sure bool
	cmd := &cobra.Command{
		Use: "delete LINK...", Short: "Delete links; their clicks stay in the statistics",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = flags.run(environ, func(cmd *cobra.Command, remote *client.Client, args []string) error {
		for _, arg := range args {
			link, err := find(cmd, remote, arg)
			if err != nil {
				return err
			}
			if !sure {
				if err := confirm(cmd, fmt.Sprintf("Delete %s, which leads to %s?", link.ShortURL, printable(link.OriginalURL))); err != nil {
					return err
				}
			}
			if err := remote.DeleteLink(cmd.Context(), link); err != nil {
				return fmt.Errorf("delete %s: %w", arg, err)
			}
			if err := flags.changed(cmd, link); err != nil {
				return err
			}
		}
		return nil
	})
	flags.add(cmd.Flags())
	cmd.Flags().BoolVarP(&sure, "yes", "y", false, "do not ask")
	return cmd
}

// confirm asks a person on a terminal. A script has to say --yes.
func confirm(cmd *cobra.Command, question string) error {
	if !isTerminal(cmd.InOrStdin()) {
		return &codedError{errors.New("nobody can be asked here: say --yes"), exitUnconfirmed}
	}
	cmd.PrintErrf("%s [y/N] ", question)
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // an end of the input is a no
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return &codedError{errors.New("nothing was deleted"), exitUnconfirmed}
	}
	return nil
}

func linksQRCommand(environ []string) *cobra.Command {
	var flags linksFlags
	var out, level, foreground, background string
	var size, margin int
	cmd := &cobra.Command{
		Use:   "qr LINK",
		Short: "Draw the QR code of a link, in the terminal or into a file",
		Long: `Draw the QR code of a link, in the terminal or into a file. The code holds the
short URL with the mark "?qr", by which statistics tell scans from clicks.

In the terminal, only --level and --margin count.`,
		Example: "  signpost links qr spring\n  signpost links qr spring --out spring.svg --foreground 1a2b3c",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = flags.run(environ, func(cmd *cobra.Command, remote *client.Client, args []string) error {
		format := strings.ToLower(strings.TrimPrefix(filepath.Ext(out), "."))
		if out != "" && format != "svg" && format != "png" {
			return fmt.Errorf("--out must be a file that ends in .svg or .png, not %q", out)
		}
		link, err := find(cmd, remote, args[0])
		if err != nil {
			return err
		}
		drawn := drawnLink{link.ShortURL, links.ScanURL(link.ShortURL), out}
		if out != "" {
			query := url.Values{}
			cmd.Flags().Visit(func(f *pflag.Flag) {
				if slices.Contains([]string{"size", "margin", "level", "foreground", "background"}, f.Name) {
					query.Set(f.Name, f.Value.String())
				}
			})
			err := writeWhole(out, func(file *os.File) error { return remote.DrawLink(cmd.Context(), link, format, query, file) })
			if err != nil {
				return fmt.Errorf("draw %s: %w", args[0], err)
			}
		}
		switch {
		case flags.json:
			return json.NewEncoder(cmd.OutOrStdout()).Encode(drawn)
		case out != "":
			return nil
		}
		return drawHere(cmd, drawn.Address, qr.Level(level), margin)
	})
	flags.add(cmd.Flags())
	f := cmd.Flags()
	f.Lookup("json").Usage = "print the short URL, the address in the code and the file as one line of JSON"
	f.StringVarP(&out, "out", "o", "", "file to write, which ends in .svg or .png")
	f.StringVar(&level, "level", "M", "how much of the code may be damaged: L, M, Q or H")
	f.IntVar(&margin, "margin", 4, "empty space around the code, in modules")
	f.IntVar(&size, "size", 512, "width of the picture in pixels")
	f.StringVar(&foreground, "foreground", "000000", "color of the code")
	f.StringVar(&background, "background", "ffffff", "color behind it")
	return cmd
}

// drawnLink is a QR code in JSON.
type drawnLink struct {
	ShortURL string `json:"short_url"`
	Address  string `json:"address"`
	File     string `json:"file,omitempty"`
}

// drawHere draws a code as text. A terminal, which may be light on dark, is told to show
// it dark on light.
func drawHere(cmd *cobra.Command, address string, level qr.Level, margin int) error {
	if margin < 0 || margin > 32 {
		return fmt.Errorf("--margin must be from 0 to 32, not %d", margin)
	}
	code, err := qr.New(address, level)
	if err != nil {
		return err
	}
	text := code.Text(margin)
	if isTerminal(cmd.OutOrStdout()) {
		const darkOnLight, usual = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
		text = darkOnLight + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", usual+"\n"+darkOnLight) + usual + "\n"
	}
	_, err = fmt.Fprint(cmd.OutOrStdout(), text)
	return err
}

func linksShowCommand(environ []string) *cobra.Command {
	var flags linksFlags
	cmd := &cobra.Command{
		Use: "show LINK", Short: "Show all fields of a link",
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = flags.run(environ, func(cmd *cobra.Command, remote *client.Client, args []string) error {
		link, err := find(cmd, remote, args[0])
		if err != nil {
			return err
		}
		if flags.json {
			return flags.changed(cmd, link)
		}
		return showLink(newTable(cmd.OutOrStdout()), link)
	})
	flags.add(cmd.Flags())
	return cmd
}

func linksListCommand(environ []string) *cobra.Command {
	var flags linksFlags
	var search, tag, domain, sort string
	var user int64
	var active bool
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List links, newest first",
		Long: `List links, newest first. In a pipe, the fields of each link are: short URL, target,
clicks, people, state (on, off or ended), time of creation, tags separated by commas,
title.`,
		Example: "  signpost links list --search recipe\n  signpost links list --tag sale --sort -people --limit 10",
		Args:    cobra.NoArgs,
	}
	cmd.RunE = flags.run(environ, func(cmd *cobra.Command, remote *client.Client, _ []string) error {
		if limit < 0 {
			return fmt.Errorf("--limit must be a number of links, or 0 for all, not %d", limit)
		}
		query := url.Values{}
		for name, value := range map[string]string{"search": search, "tag": tag, "domain": domain, "sort": sort} {
			if value != "" {
				query.Set(name, value)
			}
		}
		if user != 0 {
			query.Set("user_id", strconv.FormatInt(user, 10))
		}
		if cmd.Flags().Changed("active") {
			query.Set("is_active", strconv.FormatBool(active))
		}
		if flags.json {
			return remote.Links(cmd.Context(), query, limit, func(l client.Link) error { return flags.changed(cmd, l) })
		}
		t := newTable(cmd.OutOrStdout())
		t.header("SHORT URL", "TARGET", "CLICKS", "PEOPLE", "STATE", "CREATED", "TAGS", "TITLE")
		err := remote.Links(cmd.Context(), query, limit, func(l client.Link) error { return listLink(t, l, time.Now()) })
		return cmp.Or(err, t.flush())
	})
	flags.add(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&search, "search", "", "only links with this text in their title or target")
	f.StringVar(&tag, "tag", "", "only links with this tag")
	f.StringVar(&domain, "domain", "", "only links of the domain with this host")
	f.Int64Var(&user, "user", 0, "only links of the user with this id")
	f.BoolVar(&active, "active", true, "only links that are on, or with --active=false those that are off")
	f.StringVar(&sort, "sort", "", "clicks, people or last_clicked_at, with - before it the largest first")
	f.IntVar(&limit, "limit", 30, "how many links at most, 0 for all")
	return cmd
}
