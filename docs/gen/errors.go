package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/sockmgr/sockmgr/cmd/sockctl/cli"
)

var (
	reasonLine  = regexp.MustCompile(`^\s+ERROR_REASON_(\w+) = (\d+);$`)
	commentLine = regexp.MustCompile(`^\s+// ?(.*)$`)
)

// errorPage is errors.md. The comment of each reason begins with its gRPC code.
func errorPage(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "proto/sockmgr/v1/errors.proto"))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(`# Errors

Every error of the API has a reason: a name that never changes and that programs can act on. It is the ` + "`reason`" + ` of a
` + "`google.rpc.ErrorInfo`" + ` with the domain ` + "`sockmgr`" + `; its metadata has the facts, such as ` + "`errno`" + `, ` + "`holder_pid`" + ` or ` + "`fix`" + `.
sockctl prints it as the last line of an error, and with ` + "`-o json`" + ` as ` + "`error.reason`" + `. The id of the call, by which the audit knows it
([security.md](security.md#audit)), is in a ` + "`google.rpc.RequestInfo`" + `, and in ` + "`error.requestId`" + `.

| reason | gRPC code | sockctl exits with | |
|---|---|---|---|
`)
	var comment []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if m := commentLine.FindStringSubmatch(line); m != nil {
			comment = append(comment, m[1])
			continue
		}
		m := reasonLine.FindStringSubmatch(line)
		if m != nil && m[1] != "UNSPECIFIED" {
			row, err := reasonRow(m[1], strings.Join(comment, " "))
			if err != nil {
				return "", err
			}
			b.WriteString(row)
		}
		comment = nil
	}
	b.WriteString(`
Errors without a reason come from gRPC itself: ` + "`UNAVAILABLE`" + ` (exit 8) when no daemon answers, ` + "`DEADLINE_EXCEEDED`" + ` (exit 9)
when time ran out, ` + "`UNIMPLEMENTED`" + ` (exit 12) when the daemon does not know the call. What to do about the common ones is in
[operations.md](operations.md#when-something-is-wrong).
`)
	return b.String(), nil
}

func reasonRow(reason, comment string) (string, error) {
	name, meaning, ok := strings.Cut(comment, ": ")
	var code codes.Code
	if err := json.Unmarshal([]byte(`"`+name+`"`), &code); !ok || err != nil {
		return "", fmt.Errorf("errors.proto: the comment of %s does not begin with a gRPC code: %q", reason, comment)
	}
	return fmt.Sprintf("| `%s` | %s | %d | %s |\n", reason, name, cli.ExitCode(code), upperFirst(meaning)), nil
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
