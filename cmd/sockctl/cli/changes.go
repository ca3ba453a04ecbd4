package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// wouldBe are the words of what is only tried. Never written to.
var wouldBe = map[pb.ListenerChange_Action]string{
	pb.ListenerChange_ACTION_CREATED: "would create",
	pb.ListenerChange_ACTION_UPDATED: "would update",
	pb.ListenerChange_ACTION_REBOUND: "would rebind",
	pb.ListenerChange_ACTION_DELETED: "would delete",
	pb.ListenerChange_ACTION_FAILED:  "would fail",
}

// inPlace reports whether something that was there stays, and is changed.
func inPlace(c *pb.ListenerChange) bool {
	return c.GetAction() == pb.ListenerChange_ACTION_UPDATED || c.GetAction() == pb.ListenerChange_ACTION_REBOUND
}

// isChange reports whether something is, or would be, other than it was.
func isChange(c *pb.ListenerChange) bool {
	return c.GetAction() != pb.ListenerChange_ACTION_UNCHANGED && c.GetAction() != pb.ListenerChange_ACTION_FAILED
}

// printChanges prints a row for each listener and, under it, what is changed.
func (a *app) printChanges(changes []*pb.ListenerChange, dryRun bool) error {
	v := view{tree: func() any { return list("changes", changes) }}
	for _, c := range changes {
		if isChange(c) {
			v.names = append(v.names, listenerID(c.GetName()))
		}
	}
	v.text = func(w *bytes.Buffer, wide bool) {
		rows := [][]string{{"NAME", "ACTION", "CHANGES"}}
		for _, c := range changes {
			action := word(c.GetAction())
			if tried := wouldBe[c.GetAction()]; dryRun && tried != "" {
				action = tried
			}
			var fields []string
			if inPlace(c) || wide {
				fields = fieldLines(c)
			}
			if len(fields) == 0 {
				fields = []string{none}
			}
			for i, field := range fields {
				row := []string{clean(listenerID(c.GetName())), action, clean(field)}
				if i > 0 {
					row[0], row[1] = "", ""
				}
				rows = append(rows, row)
			}
		}
		layOut(w, "", rows)
	}
	return a.print(v)
}

// reportChanges says on stderr what went not, or not quite, as wanted.
func (a *app) reportChanges(b *batch, ms *manifests, changes []*pb.ListenerChange) {
	for _, c := range changes {
		id := listenerID(c.GetName())
		if !a.structured() { // else it stands in the answer
			for _, issue := range c.GetIssues() {
				a.note("%s: %s", id, issueText(issue))
			}
		}
		if c.GetAction() == pb.ListenerChange_ACTION_FAILED {
			b.fail(id, ms.failureOf(c))
		} else {
			b.done++
		}
	}
}

// failureOf is why a listener failed, with the place in its manifest.
func (ms *manifests) failureOf(c *pb.ListenerChange) *failure {
	id := listenerID(c.GetName())
	f := issueFailure(c.GetError())
	if flag := map[string]string{"MANAGER_CONFLICT": "--force", "OPTION_NEEDS_REBIND": "--rebind"}[f.reason]; flag != "" {
		if i := strings.LastIndex(f.message, "; "); i > 0 {
			f.message = f.message[:i] // the fix in the words of the API
		}
		f = f.try("sockctl apply -f " + ms.arg + " " + flag)
	}
	path := c.GetError().GetField()
	if path == "" && f.reason == "OPTION_NEEDS_REBIND" {
		path = "spec.listen"
	}
	return ms.locate(f, id, path)
}

// locate adds to a failure of a listener its place in the manifest.
func (ms *manifests) locate(f *failure, id, path string) *failure {
	m := ms.byName[id]
	if m == nil { // to be pruned
		return f
	}
	if !mentions(f.message, id) {
		f.message = id + ": " + f.message
	}
	if path == "" {
		for i, uri := range m.listener.GetSpec().GetListen() {
			if strings.Contains(f.message, uri) {
				path = fmt.Sprintf("spec.listen[%d]", i)
			}
		}
	}
	at := m.place(path).String()
	f.message = at + ": " + f.message
	if path != "" {
		f = f.with("field", path)
	}
	return f.with("listener", id).with("at", at)
}

// fieldLines are the fields of a change, as path: before -> after.
func fieldLines(c *pb.ListenerChange) []string {
	var lines []string
	for _, f := range c.GetFields() {
		if f.GetPath() == "spec.handler" {
			lines = append(lines, handlerLines(f)...)
			continue
		}
		lines = append(lines, changeLine(f.GetPath(), jsonText(f.GetBefore()), jsonText(f.GetAfter())))
	}
	return lines
}

// handlerLines compares two handlers field by field.
func handlerLines(f *pb.FieldChange) []string {
	var was, is pb.Handler
	before, after := handlerTexts(f.GetBefore(), &was), handlerTexts(f.GetAfter(), &is)
	if before == nil || after == nil || handlerKind(&was) != handlerKind(&is) {
		return []string{changeLine(f.GetPath(), jsonHandler(f.GetBefore(), &was), jsonHandler(f.GetAfter(), &is))}
	}
	paths := maps.Clone(before)
	maps.Copy(paths, after)
	var lines []string
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if before[path] != after[path] {
			lines = append(lines, changeLine(f.GetPath()+"."+path, before[path], after[path]))
		}
	}
	return lines
}

// handlerTexts reads a handler and returns its fields by path, nil when it is
// one of a newer daemon.
func handlerTexts(text string, h *pb.Handler) map[string]string {
	if protojson.Unmarshal([]byte(text), h) != nil || handlerField(h) == nil {
		return nil
	}
	kind := handlerField(h)
	texts := map[string]string{}
	h.ProtoReflect().Get(kind).Message().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		path := string(kind.Name()) + "." + f.JSONName()
		switch v := v.Interface().(type) {
		case protoreflect.Map:
			v.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				texts[path+"."+k.String()] = quoteText(v.String())
				return true
			})
		case []byte:
			texts[path] = strconv.Quote(string(v))
		case protoreflect.EnumNumber:
			texts[path] = enumWord(f.Enum(), v)
		case protoreflect.List:
			for i := range v.Len() {
				texts[fmt.Sprintf("%s[%d]", path, i)] = oneLine(sparseValue(f, v.Get(i)))
			}
		case protoreflect.Message:
			texts[path] = oneLine(sparseValue(f, protoreflect.ValueOfMessage(v)))
		default:
			texts[path] = quoteText(fmt.Sprint(v))
		}
		return true
	})
	return texts
}

// oneLine is a tree as JSON on one line.
func oneLine(tree any) string {
	var b bytes.Buffer
	writeJSON(&b, tree, "")
	return b.String()
}

func jsonHandler(text string, h *pb.Handler) string {
	if handlerField(h) == nil {
		return jsonText(text)
	}
	return handlerText(h)
}

// most is how many letters of a value a line shows.
const most = 60

// changeLine is one field, its values cut to what fits a line.
func changeLine(path, before, after string) string {
	for _, s := range []*string{&before, &after} {
		if *s == "" {
			*s = "unset"
		}
	}
	if path == "manager" { // of a file, the end tells most
		return path + ": " + before + " -> " + after
	}
	// Of two long texts, show where they begin to differ.
	from := 0
	for from < min(len(before), len(after)) && before[from] == after[from] {
		from++
	}
	if from > most/2 && max(len(before), len(after)) > most {
		for from -= 20; from > 0 && !utf8.RuneStart(before[from]); {
			from--
		}
		before, after = "..."+before[from:], "..."+after[from:]
	}
	return path + ": " + clip(before) + " -> " + clip(after)
}

// clip cuts a long text.
func clip(s string) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "..."
}

// jsonText is a value of the API for people: text without its quotes where
// that can be read.
func jsonText(s string) string {
	var v any
	if json.Unmarshal([]byte(s), &v) != nil {
		return s
	}
	switch v := v.(type) {
	case string:
		return quoteText(v)
	case []any:
		words := make([]string, len(v))
		for i, item := range v {
			word, ok := item.(string)
			if !ok {
				return s
			}
			words[i] = quoteText(word)
		}
		return strings.Join(words, ", ")
	}
	return s
}

// quoteText quotes text that would not read as one word.
func quoteText(s string) string {
	if s == "" || s == "unset" || strings.ContainsAny(s, " \"',") || strings.ContainsFunc(s, unprintable) {
		return strconv.Quote(s)
	}
	return s
}
