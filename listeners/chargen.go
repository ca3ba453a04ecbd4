package listeners

// Chargen sends characters (RFC 864): on a connection lines of 72 of them, for
// as long as the peer takes any, and for a datagram one that is no longer than
// it was, so that nobody can have it send more to others than he sends himself.
type Chargen struct{}

// Kind is HandlerSpec.Kind.
func (Chargen) Kind() string { return "chargen" }

// Datagram is HandlerSpec.Datagram.
func (Chargen) Datagram() bool { return true }

// Validate is HandlerSpec.Validate.
func (Chargen) Validate() error { return nil }

// New is HandlerSpec.New.
func (c Chargen) New() Handler { return c }

// Open makes the Handler of a connection.
func (Chargen) Open(Peer) (Handler, error) { return new(generator), nil }

// Handle answers a datagram.
func (Chargen) Handle(from Peer, p []byte) (int, error) {
	return len(p), from.WriteShared(charLines[:min(len(p), maxChargen)])
}

const (
	charsShown = int('~'-' ') + 1 // the printing characters of ASCII
	charsLine  = 72
	maxChargen = 512 // characters in a datagram
)

// charLines is what a connection gets, over and over: each line begins one
// character later than the one before, and after as many lines as there are
// characters it is as at first.
var charLines = func() (lines []byte) {
	for first := range charsShown {
		for i := range charsLine {
			lines = append(lines, byte(' '+(first+i)%charsShown))
		}
		lines = append(lines, '\r', '\n')
	}
	return lines
}()

// A generator is the Handler of one connection.
type generator struct {
	Discard
	ended bool // its listener drains
}

// Feed sends all lines once: 7 KB, so that others have their turn.
func (g *generator) Feed(to Peer) error {
	if g.ended {
		return errDone
	}
	return to.WriteShared(charLines)
}

// Drain lets the lines be the last that are on their way.
func (g *generator) Drain(p Peer) (atRest bool) {
	g.ended = true
	return !p.Pending()
}
