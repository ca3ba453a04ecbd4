package listeners

// Discard reads and drops (RFC 863).
type Discard struct{}

// Kind is HandlerSpec.Kind.
func (Discard) Kind() string { return "discard" }

// Datagram is HandlerSpec.Datagram.
func (Discard) Datagram() bool { return true }

// Validate is HandlerSpec.Validate.
func (Discard) Validate() error { return nil }

// New is HandlerSpec.New.
func (d Discard) New() Handler { return d }

// Handle consumes everything.
func (Discard) Handle(_ Peer, p []byte) (int, error) { return len(p), nil }
