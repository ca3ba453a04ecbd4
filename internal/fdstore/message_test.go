package fdstore

import (
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	f.Add("FDSTORE=1\nFDPOLL=0\nFDNAME=web@1f.0.0")
	f.Add("FDSTOREREMOVE=1\nFDNAME=web@1f.0.0")
	f.Add("BARRIER=1")
	f.Add("READY=1\nSTATUS=ok\nMAINPID=1")
	f.Add("FDNAME=a:b\nFDNAME=\nFDNAME=\x00")
	f.Add("WATCHDOG=1\n" + ExpectHeir(7))
	f.Fuzz(func(t *testing.T, text string) {
		m := Parse(text)
		if !isName(m.Name) || strings.ContainsAny(m.Name, ":\n\x00") {
			t.Errorf("%q gives the name %q, which LISTEN_FDNAMES cannot have", text, m.Name)
		}
	})
}
