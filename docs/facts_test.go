package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/sockmgr/sockmgr/cmd/sockctl/cli"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// TestLinks follows every link that stays in the repository.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			path, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(t, target), anchor) {
				t.Errorf("%s: link to %s: no such heading", page, m[1])
			}
		}
	}
}

// anchors are the names that GitHub gives to headings.
func anchors(t *testing.T, page string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		words := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(words, " ", "-"))
	}
	return all
}

// TestClient checks that api.md shows the programs as they are.
func TestClient(t *testing.T) {
	page, err := os.ReadFile("api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"client/main.go", "webserver/main.go"} {
		source, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "```go\n"+string(source)+"```\n") {
			t.Errorf("no Go block of api.md is docs/%s", program)
		}
	}
}

// TestServices checks that api.md names every call there is.
func TestServices(t *testing.T) {
	page, err := os.ReadFile("api.md")
	if err != nil {
		t.Fatal(err)
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("sockmgr.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			row := ""
			for line := range strings.Lines(string(page)) {
				if strings.HasPrefix(line, "| `"+string(service.Name())+"` |") {
					row = line
				}
			}
			for j := range service.Methods().Len() {
				if method := service.Methods().Get(j).Name(); !strings.Contains(row, "`"+string(method)+"`") {
					t.Errorf("api.md does not name %s/%s", service.Name(), method)
				}
			}
		}
		return true
	})
}

// TestNotYet checks that what the README says is not there is not there.
func TestNotYet(t *testing.T) {
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## Not there yet\n")
	section, _, _ = strings.Cut(section, "\n#")
	verbs := regexp.MustCompile("`sockctl ([a-z ,-]+)`").FindAllStringSubmatch(section, -1)
	if !found || len(verbs) == 0 {
		t.Fatal("the README has no section on what is not there yet")
	}
	for _, m := range verbs {
		if c, rest, err := cli.Commands().Find(strings.Fields(m[1])); err == nil && c.HasParent() && len(rest) == 0 {
			t.Errorf("the README says that there is no `sockctl %s` yet: say it in CHANGELOG.md and in docs/ instead", m[1])
		}
	}
}
