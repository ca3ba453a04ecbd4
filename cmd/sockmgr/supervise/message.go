package supervise

import (
	"strconv"
	"strings"
)

// A message is what the daemon tells (sd_notify(3)).
type message struct {
	store    bool   // keep the descriptors that come with it
	remove   bool   // let go of those of that name
	name     string // of them
	ready    bool
	stopping bool
	main     int // the process that is the daemon from now on; 0: as before
}

// maxName is that of systemd.
const maxName = 255

// parse reads lines KEY=VALUE. What it does not know it leaves out.
func parse(text string) message {
	m := message{name: "stored"}
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		on := value == "1"
		switch key {
		case "FDSTORE":
			m.store = on
		case "FDSTOREREMOVE":
			m.remove = on
		case "FDNAME":
			if isName(value) {
				m.name = value
			}
		case "READY":
			m.ready = on
		case "STOPPING":
			m.stopping = on
		case "MAINPID":
			m.main, _ = strconv.Atoi(value)
		}
	}
	return m
}

// isName reports whether a descriptor can have the name: names are handed over
// with colons between them.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}
