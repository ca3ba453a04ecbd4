package daemon

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
)

// logQueue is how many lines may wait to be written.
const logQueue = 1024

// A logWriter writes in a goroutine of its own, so that a terminal or a pipe
// that nobody reads never holds up the loop. Lines that find the queue full are
// dropped, and counted in the line that follows.
type logWriter struct {
	lines   chan []byte
	dropped atomic.Uint64
	done    chan struct{}
	end     sync.Once
}

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{lines: make(chan []byte, logQueue), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for line := range l.lines {
			if line == nil {
				return
			}
			if n := l.dropped.Swap(0); n > 0 {
				_, _ = fmt.Fprintf(w, "sockmgr: %d lines of the log were dropped: nobody reads fast enough\n", n)
			}
			_, _ = w.Write(line) // there is nowhere to complain
		}
	}()
	return l
}

// Write queues a copy of p.
func (l *logWriter) Write(p []byte) (int, error) {
	select {
	case l.lines <- scrub(p):
	default:
		l.dropped.Add(1)
	}
	return len(p), nil
}

// scrub returns a copy of a record without what a terminal would take for a
// command, and as one line: names and messages may have bytes of anybody's. Stacks
// of the daemon's own have a line for each call.
func scrub(p []byte) []byte {
	out := make([]byte, 0, len(p))
	isJSON := len(p) > 0 && p[0] == '{' // a line of text begins with the time
	_, rest, _ := bytes.Cut(p, []byte("\n"))
	isStack := bytes.HasPrefix(rest, []byte("  stack=\n")) // the first value of several lines, which is nobody else's
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		switch {
		case r == '\n' && len(p) > 1 && !isStack:
			out = append(out, `\n`...)
		case r == '\n' || r == '\t':
			out = append(out, p[0])
		case r == utf8.RuneError && n == 1 && isJSON:
			out = append(out, `\ufffd`...)
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\x%02x`, p[0])
		case isJSON && !unicode.IsPrint(r): // which has no \x and no \U
			for _, unit := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		case !unicode.IsPrint(r): // escape sequences, of C1 too, and marks that turn the direction
			out = append(out, strings.Trim(strconv.QuoteRuneToASCII(r), "'")...)
		default:
			out = append(out, p[:n]...)
		}
		p = p[n:]
	}
	return out
}

// Close writes what is queued. What is logged after it is lost.
func (l *logWriter) Close() {
	l.end.Do(func() { l.lines <- nil })
	<-l.done
}

func newLogger(c config, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "sockmgr", Level: hclog.LevelFromString(c.LogLevel), Output: w, JSONFormat: c.LogFormat == "json",
		IndependentLevels: true,
	})
}
