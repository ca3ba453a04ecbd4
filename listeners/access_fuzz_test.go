package listeners

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// FuzzAccess: lists of networks are refused with reasons, or decide as looking
// at one network after the other does, and mean the same when they are saved and
// read again.
func FuzzAccess(f *testing.F) {
	f.Add("10.0.0.0/8 ::1", "10.1.0.0/16 ::ffff:10.2.0.0/112", "10.1.2.3")
	f.Add("", "0.0.0.0/0 ::/0", "::1")
	f.Add("255.255.255.255 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "0.0.0.0", "255.255.255.255")
	f.Add("10.0.0.1/8", "localhost", "fe80::1%lo")
	f.Add("2001:db8::/32 2001:db8:8000::/33 2001:db9::/32", "", "::ffff:127.0.0.1")
	f.Fuzz(func(t *testing.T, allow, deny, from string) {
		p, err := ParseAccess(strings.Fields(allow), strings.Fields(deny), false, nil)
		if err != nil {
			return
		}
		saved, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var again AccessPolicy
		if err := json.Unmarshal(saved, &again); err != nil {
			t.Fatalf("%s: %v", saved, err)
		}
		a, err := netip.ParseAddr(from)
		if err != nil {
			return
		}
		has := func(list []string) bool {
			return slices.ContainsFunc(list, func(text string) bool { return netip.MustParsePrefix(text).Contains(a.Unmap().WithZone("")) })
		}
		want := (len(p.Allow) == 0 || has(p.Allow)) && !has(p.Deny)
		if p.Admits(a) != want || again.Admits(a) != want {
			t.Errorf("allow %q deny %q: %v is let in: %v, and saved %v; want %v", allow, deny, a, p.Admits(a), again.Admits(a), want)
		}
	})
}
