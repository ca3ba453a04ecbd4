package supervise

import (
	"fmt"
	"io"
	"time"
)

// lines is the log. It never waits: lines that nobody reads are lost, and so are
// those of a second that has had its share, whatever a daemon does to cause them.
type lines struct {
	queue  chan string
	second time.Time
	count  int
}

// perSecond bounds them.
const perSecond = 20

func newLines() lines { return lines{queue: make(chan string, 64)} }

func (l *lines) add(format string, args ...any) {
	if now := time.Now(); now.Sub(l.second) >= time.Second {
		l.second, l.count = now, 0
	}
	if l.count++; l.count > perSecond {
		return
	}
	select {
	case l.queue <- fmt.Sprintf("sockmgr supervise: "+format+"\n", args...):
	default:
	}
}

func (l *lines) write(to io.Writer) {
	for line := range l.queue {
		_, _ = io.WriteString(to, line) // there is nowhere to complain
	}
}
