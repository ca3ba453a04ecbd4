package manager

import (
	"regexp"
	"strings"
	"testing"
)

// A name is what the pattern in the API says.
func TestIsName(t *testing.T) {
	form := regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	names := []string{"", "a", "-a", "a-", strings.Repeat("a", 63), strings.Repeat("a", 64), "a\n", "ä", "a\xff"}
	for c := range 256 {
		names = append(names, string([]byte{byte(c)}), string([]byte{'a', byte(c)}))
	}
	for _, name := range names {
		if isName(name) != form.MatchString(name) {
			t.Errorf("%q: %v", name, isName(name))
		}
	}
}
