package fdstore

import (
	"fmt"
	"strconv"
	"strings"
)

// A Message is what the daemon tells (sd_notify(3)), as its service manager reads it.
type Message struct {
	Store    bool   // keep the descriptors that come with it
	Remove   bool   // let go of those of that name
	Name     string // of them
	Ready    bool
	Stopping bool
	Fed      bool // it turns: WATCHDOG=1
	Main     int  // the process that is the daemon from now on; 0: as before
	Heir     int  // that may be soon, whatever happens to who says so; 0: none, -1: as before
}

// heirKey is of `sockmgr supervise` only: systemd leaves out what it does not know.
const heirKey = "X_SOCKMGR_HEIR"

// ExpectHeir is what tells Message.Heir.
func ExpectHeir(pid int) string { return fmt.Sprintf("%s=%d", heirKey, pid) }

// maxName is that of systemd.
const maxName = 255

// Parse reads lines KEY=VALUE. What it does not know it leaves out.
func Parse(text string) Message {
	m := Message{Name: "stored", Heir: -1}
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		on := value == "1"
		switch key {
		case "FDSTORE":
			m.Store = on
		case "FDSTOREREMOVE":
			m.Remove = on
		case "FDNAME":
			if isName(value) {
				m.Name = value
			}
		case "READY":
			m.Ready = on
		case "STOPPING":
			m.Stopping = on
		case "WATCHDOG":
			m.Fed = on
		case "MAINPID":
			m.Main, _ = strconv.Atoi(value)
		case heirKey:
			m.Heir, _ = strconv.Atoi(value)
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
