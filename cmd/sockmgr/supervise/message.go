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
	fed      bool // it turns: WATCHDOG=1
	main     int  // the process that is the daemon from now on; 0: as before
	heir     int  // that may be soon, whatever happens to who says so; 0: none, -1: as before
}

// heirKey is of this pair only: systemd leaves out what it does not know.
const heirKey = "X_SOCKMGR_HEIR"

// maxName is that of systemd.
const maxName = 255

// parse reads lines KEY=VALUE. What it does not know it leaves out.
func parse(text string) message {
	m := message{name: "stored", heir: -1}
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
		case "WATCHDOG":
			m.fed = on
		case "MAINPID":
			m.main, _ = strconv.Atoi(value)
		case heirKey:
			m.heir, _ = strconv.Atoi(value)
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
