package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

const (
	manifestVersion = "sockmgr.v1"
	manifestKind    = "Listener"

	rawOptions = "spec.options.so:"

	maxManifest = 64 << 20 // bytes of one file
)

// A place is where in a file something stands.
type place struct {
	file         string
	line, column int
}

// String is file:line:column, as compilers have it.
func (p place) String() string { return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.column) }

// A fault is something that is wrong in a manifest.
type fault struct {
	at   place
	text string
}

// A manifest is one document: what it wants of a listener, and where each
// field stands, by its path as the daemon calls it: spec.options.backlog.
type manifest struct {
	listener *pb.Listener
	at       map[string]place
}

// place returns where a field is, or else what holds it.
func (m *manifest) place(path string) place {
	if _, ok := m.at[path]; !ok && strings.HasPrefix(path, rawOptions) {
		// The daemon may call it otherwise: so:SOL_SOCKET:9999 for so:1:9999.
		var raw []place
		for path, at := range m.at {
			if strings.HasPrefix(path, rawOptions) {
				raw = append(raw, at)
			}
		}
		if len(raw) == 1 {
			return raw[0]
		}
	}
	for path != "" {
		if at, ok := m.at[path]; ok {
			return at
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return m.at["name"]
}

// manifests are all documents that one -f names.
type manifests struct {
	arg    string // as it was given
	owner  string // what the daemon notes in the listeners
	all    []*manifest
	byName map[string]*manifest // by id
	faults []fault
}

func (ms *manifests) listeners() []*pb.Listener {
	all := make([]*pb.Listener, len(ms.all))
	for i, m := range ms.all {
		all[i] = m.listener
	}
	return all
}

// manifests reads what -f names: a file, a directory or - for standard input.
// All that is wrong is in the error.
func (a *app) manifests(ctx context.Context, arg string) (*manifests, error) {
	ms := &manifests{arg: arg, byName: map[string]*manifest{}}
	if err := a.readManifests(ctx, ms); err != nil {
		return nil, err
	}
	for _, m := range ms.all {
		id := m.listener.GetName()
		if first := ms.byName[id]; first != nil {
			ms.faults = append(ms.faults, fault{m.at["name"], fmt.Sprintf("name %s is given twice, first at %s", id, first.at["name"])})
			continue
		}
		ms.byName[id] = m
	}
	if len(ms.all) == 0 && len(ms.faults) == 0 {
		// An empty set with --prune would remove everything.
		return nil, usagef("-f %s: there is no document in it: it is empty, or has null or comments only", ms.arg).
			try("sockctl rm NAME... removes listeners")
	}
	return ms, ms.failure()
}

func (a *app) readManifests(ctx context.Context, ms *manifests) error {
	if ms.arg == "-" {
		ms.owner = "file:-"
		text, err := interruptible(ctx, func() ([]byte, error) { return readManifest(a.env.Stdin) })
		if err != nil {
			return usagef("-f -: %s", err)
		}
		ms.read("<stdin>", text)
		return nil
	}
	files, err := manifestFiles(ms.arg)
	if err != nil {
		return err
	}
	whole, err := filepath.Abs(ms.arg)
	if err != nil {
		return usagef("-f %s: %s", ms.arg, err)
	}
	ms.owner = strings.ToValidUTF8("file:"+whole, "\uFFFD")
	for _, file := range files {
		text, err := interruptible(ctx, func() ([]byte, error) {
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			text, err := readManifest(f)
			return text, errors.Join(err, f.Close())
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return usagef("-f %s: %s", ms.arg, err)
		}
		ms.read(file, text)
	}
	return nil
}

func readManifest(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err == nil && len(text) > maxManifest {
		err = fmt.Errorf("a manifest has at most %s", size(maxManifest))
	}
	return text, err
}

// manifestFiles returns the files of a directory in the order of their names,
// or the one file that arg is.
func manifestFiles(arg string) ([]string, error) {
	info, err := os.Stat(arg)
	if err != nil {
		return nil, usagef("-f: %s", err)
	}
	if !info.IsDir() {
		return []string{arg}, nil
	}
	entries, err := os.ReadDir(arg)
	if err != nil {
		return nil, usagef("-f: %s", err)
	}
	var files []string
	for _, e := range entries {
		known := slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name()))
		if known && !strings.HasPrefix(e.Name(), ".") && !e.IsDir() { // an editor's files begin with a dot
			files = append(files, filepath.Join(arg, e.Name()))
		}
	}
	if len(files) == 0 {
		// An empty set with --prune would remove everything.
		return nil, usagef("-f %s: no *.yaml, *.yml or *.json is in this directory", arg)
	}
	return files, nil
}

// read reads the documents of one file. One without content is none.
func (ms *manifests) read(file string, text []byte) {
	if f, bad := badByte(file, text); bad {
		ms.faults = append(ms.faults, f)
		return
	}
	for dec := yaml.NewDecoder(bytes.NewReader(yamlOfJSON(text))); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			ms.faults = append(ms.faults, syntaxFault(file, string(text), err))
			return
		}
		root := doc.Content[0]
		if isNull(root) {
			continue
		}
		d := decoder{file: file, at: map[string]place{}}
		if l := d.listener(root); len(d.faults) == 0 {
			ms.all = append(ms.all, &manifest{l, d.at})
		}
		ms.faults = append(ms.faults, d.faults...)
	}
}

// failure makes one error of all faults.
func (ms *manifests) failure() error {
	if len(ms.faults) == 0 {
		return nil
	}
	f := usagef("%s: %s", ms.faults[0].at, ms.faults[0].text)
	if n := len(ms.faults); n > 1 {
		f.message = fmt.Sprintf("-f %s: %d faults, nothing is sent", ms.arg, n)
	}
	for _, one := range ms.faults {
		f.violations = append(f.violations, &errdetails.BadRequest_FieldViolation{Field: one.at.String(), Description: one.text})
	}
	return f
}

// badByte finds what YAML refuses without saying where.
func badByte(file string, text []byte) (fault, bool) {
	at := place{file, 1, 1}
	for rest := text; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && n == 1:
			return fault{at, fmt.Sprintf("byte 0x%02x is not UTF-8", rest[0])}, true
		case r < ' ' && r != '\t' && r != '\r' && r != '\n', 0x7f <= r && r < 0xa0 && r != 0x85, r == 0xfffe, r == 0xffff:
			return fault{at, fmt.Sprintf("the control character %U cannot stand in a manifest as it is", r)}, true
		case r == '\n':
			at.line, at.column = at.line+1, 0
		}
		at.column++
		rest = rest[n:]
	}
	return fault{}, false
}

var (
	documentMark = regexp.MustCompile(`(?m)^---[ \t]*\r?\n`)
	escape       = regexp.MustCompile(`\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|.)`)
)

// yamlOfJSON replaces, in the documents that are JSON, the two escapes that
// YAML has not: \/ and a surrogate pair.
func yamlOfJSON(text []byte) []byte {
	out := bytes.Clone(text[:0])
	for from := 0; from < len(text); {
		end, next := len(text), len(text)
		if mark := documentMark.FindIndex(text[from:]); mark != nil {
			end, next = from+mark[0], from+mark[1]
		}
		if doc := text[from:end]; json.Valid(doc) {
			out = append(out, escape.ReplaceAllFunc(doc, yamlEscape)...)
		} else {
			out = append(out, doc...)
		}
		out = append(out, text[end:next]...)
		from = next
	}
	return out
}

func yamlEscape(found []byte) []byte {
	switch {
	case string(found) == `\/`:
		return []byte("/")
	case len(found) == 12:
		high, _ := strconv.ParseUint(string(found[2:6]), 16, 32) // is hex
		low, _ := strconv.ParseUint(string(found[8:]), 16, 32)
		return fmt.Appendf(nil, `\U%08x`, 0x10000+(high-0xd800)<<10+(low-0xdc00))
	}
	return found
}

var (
	syntaxError   = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntaxFault makes a fault of what the YAML parser says. It knows the line at
// most; the column is where the text of that line begins.
func syntaxFault(file, text string, err error) fault {
	f := fault{place{file, 1, 1}, err.Error()}
	m := syntaxError.FindStringSubmatch(f.text)
	if m == nil {
		return f
	}
	f.text = m[2]
	if anchor := unknownAnchor.FindStringSubmatch(f.text); anchor != nil {
		before, _, _ := strings.Cut(text, "*"+anchor[1])
		f.at.line += strings.Count(before, "\n")
		f.at.column += utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:])
		return f
	}
	if n, err := strconv.Atoi(m[1]); err == nil {
		if f.at.line = n; strings.HasPrefix(f.text, "did not find expected") {
			f.at.line++ // the parser's own errors, not the scanner's, count from 0
		}
	}
	lines := strings.Split(text, "\n")
	margin := func(line int) string {
		s := lines[min(line, len(lines))-1]
		return s[:len(s)-len(strings.TrimLeft(s, " \t"))]
	}
	for strings.Contains(f.text, "tab character") && f.at.line < len(lines) && !strings.Contains(margin(f.at.line), "\t") {
		f.at.line++ // it gave the line of the text before
	}
	f.at.column += len(margin(f.at.line))
	return f
}
