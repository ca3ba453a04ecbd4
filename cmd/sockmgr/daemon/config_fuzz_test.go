package daemon

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sockmgr/sockmgr/manager/access"
)

var subject = regexp.MustCompile(`(user|group)["']?\s*:[^,}\n]*`)

// FuzzConfig: a configuration file is refused with a reason, or gives rules in
// which every grant is of a rule that has just one subject, and nobody has more
// than the rules say.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"control: [unix:///run/x.sock]\nlog-level: debug\naccess:\n  - {user: \"7\", role: viewer}\n",
		"access:\n  - {group: \"0\", role: operator, policy: {names: [web-], addresses: [127.0.0.0/8, /run/web/], ports: [\"0\", 8000-8999], handlers: [echo], upstreams: [\"*.example.com\"]}}\n",
		"access:\n  - {certificate: \"dns:x\", role: admin, policy: {programs: [/bin/cat]}}\nexec-allow: [/bin/cat]\n",
		"access: [{user: root, group: root, role: admin}]", "control: []", "access: {}", "&a [*a]", "a: &a [x]\nb: *a", "poller: poll\nmetrics: 127.0.0.1:0\n", "access: [{user: \"4294967295\", role: admin}]",
		"access: [{user: \"-1\", role: admin}]", "---\n---\n", "access: [null]", "control: null", "allow-metadata: yes", "!!binary x",
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "config")
	f.Fuzz(func(t *testing.T, text []byte) {
		text = subject.ReplaceAll(text, []byte(`$1: "7"`)) // no look-ups of names that nobody has
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readConfig([]string{"--config", path}, func(string) string { return "" }, io.Discard)
		if err != nil {
			if !strings.Contains(err.Error(), ":") {
				t.Errorf("%v does not say what is wrong", err)
			}
			return
		}
		if c.rules == nil {
			t.Fatal("no rules")
		}
		var said struct {
			Access []access.Rule `yaml:"access"`
		}
		_ = yaml.Unmarshal(text, &said)
		stranger := access.Identity{IsUser: true, UID: 4242, GIDs: []uint32{4243}, Names: []string{"dns:nobody.example"}}
		if got := c.rules.Grants(stranger); len(got) > len(said.Access) {
			t.Errorf("a stranger has %v by\n%s", got, text)
		}
	})
}
