package cli

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// biggest is the largest integer that a float64, and so a JSON number of the
// API, holds exactly.
const biggest = 1 << 53

// parsePairs reads k=v pairs; what is said in front of a complaint.
func parsePairs(what string, pairs []string) (map[string]string, error) {
	m := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value, found := strings.Cut(pair, "=")
		if !found || key == "" {
			return nil, usagef("%s %q: want name=value", what, pair)
		}
		if _, twice := m[key]; twice {
			return nil, usagef("%s %s is given twice", what, key)
		}
		m[key] = value
	}
	return m, nil
}

// parseOptions reads k=v pairs whose values have a type.
func parseOptions(what string, pairs []string) (map[string]*structpb.Value, error) {
	plain, err := parsePairs(what, pairs)
	if err != nil {
		return nil, err
	}
	m := make(map[string]*structpb.Value, len(plain))
	for key, value := range plain {
		m[key] = parseValue(value)
	}
	return m, nil
}

// parseValue reads the value of an option: true and false, null (the
// default), a whole number, or text such as 30s and 4MiB, which the daemon
// understands. Only a number in its usual form is one: 0660 is text, so that
// its zero arrives.
func parseValue(s string) *structpb.Value {
	switch s {
	case "true", "false":
		return structpb.NewBoolValue(s == "true")
	case "null":
		return structpb.NewNullValue()
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && -biggest <= n && n <= biggest && strconv.FormatInt(n, 10) == s {
		return structpb.NewNumberValue(float64(n))
	}
	return structpb.NewStringValue(strings.ToValidUTF8(s, "\uFFFD"))
}
