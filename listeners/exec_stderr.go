package listeners

import (
	"bytes"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// What programs write to stderr goes to the log, line by line, at most
// stderrBurst lines at once and then stderrRate in a second; further ones are
// counted. A program that writes more than is read waits in write(2).
const (
	stderrLine  = 1 << 10 // longer ones are cut
	stderrRead  = 64 << 10
	stderrBurst = 50
	stderrRate  = 20
	stderrTell  = time.Second
	stderrRest  = 10 * time.Millisecond // after a read that was too much for the log
)

// A stderrPipe is what the programs of one listener share. Loop only.
type stderrPipe struct {
	set     *Set
	name    string
	r, w    int // w is the programs'; it blocks
	partial []byte
	cut     bool // the line in partial is longer
	credit  float64
	at      time.Duration // when credit was counted
	dropped int
	told    time.Duration // when that was told last
	resting mux.Timer
}

func newStderr(set *Set, name string) (*stderrPipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	p := &stderrPipe{set: set, name: name, r: fds[0], w: fds[1], credit: stderrBurst, at: set.loop.Clock()}
	err := unix.SetNonblock(p.r, true)
	if err == nil {
		err = set.loop.Add(p.r, mux.Readable, p)
	}
	if err != nil {
		sysClose(p.r)
		sysClose(p.w)
		return nil, err
	}
	set.used += 2
	return p, nil
}

// Ready reads once.
func (p *stderrPipe) Ready(mux.Events) {
	if n := p.read(); n > 0 && p.credit < 1 {
		_ = p.set.loop.Remove(p.r) // it is there
		p.set.loop.Arm(&p.resting, p.set.loop.Clock()+stderrRest, p)
	}
}

// Expired reads on.
func (p *stderrPipe) Expired() {
	if err := p.set.loop.Add(p.r, mux.Readable, p); err != nil {
		p.set.log.Error("cannot wait for stderr", "listener", p.name, "error", err)
	}
}

func (p *stderrPipe) read() int {
	buf := p.set.buf[:stderrRead] // it has as much at least
	n, err := unix.Read(p.r, buf)
	if err != nil || n <= 0 {
		return 0 // EAGAIN; w being ours, it does not end
	}
	for rest := buf[:n]; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		room := max(stderrLine-len(p.partial), 0)
		p.cut = p.cut || len(line) > room
		p.partial = append(p.partial, line[:min(len(line), room)]...)
		if ended {
			p.flush()
		}
		rest = after
	}
	return n
}

// flush logs a line, if there is one and leave to.
func (p *stderrPipe) flush() {
	line, cut := p.partial, p.cut
	p.partial, p.cut = p.partial[:0], false
	if len(line) == 0 {
		return
	}
	now := p.set.loop.Clock()
	p.credit = min(p.credit+(now-p.at).Seconds()*stderrRate, stderrBurst)
	p.at = now
	if p.credit < 1 {
		p.dropped++
		return
	}
	p.credit--
	if now-p.told >= stderrTell {
		p.tellDropped()
	}
	text := cleanLine(line)
	if cut {
		text += "..."
	}
	p.set.log.Info("stderr", "listener", p.name, "line", text)
}

func (p *stderrPipe) tellDropped() {
	if p.dropped > 0 {
		p.told = p.set.loop.Clock()
		p.set.log.Warn("lines of stderr were dropped: too many at once", "listener", p.name, "lines", p.dropped)
		p.dropped = 0
	}
}

// cleanLine keeps a program from writing what a terminal would take for more
// than text.
func cleanLine(line []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(bytes.TrimRight(line, "\r")), "?"))
}

// close takes what is there still. The pipe holds no more than one read takes.
func (p *stderrPipe) close() {
	p.read()
	p.flush()
	p.tellDropped()
	if p.resting.Set() {
		p.set.loop.Disarm(&p.resting)
	} else {
		_ = p.set.loop.Remove(p.r) // before the close, as always
	}
	sysClose(p.r)
	sysClose(p.w)
	p.set.released()
	p.set.released()
}
