// Package handover is how descriptors leave the daemon, which gRPC cannot carry:
// a Unix socket that keeps message boundaries (unixpacket), beside each control
// socket and for the same users. A caller sends one Request as JSON and gets one
// Reply or more, with descriptors (SCM_RIGHTS):
//
//	take       the sockets of the named listeners, for a program that knows
//	           socket activation: `sockctl exec`
//	supervise  the daemon goes on under another supervisor, and leaves all that it
//	           keeps in the store of that one: `sockmgr supervise`
package handover

// The verbs.
const (
	Take      = "take"
	Supervise = "supervise"
)

// PerMessage is the most descriptors that the kernel takes at once (SCM_MAX_FD).
const PerMessage = 253

// maxMessage bounds a Request and a Reply.
const maxMessage = 128 << 10

// A Request is what is asked.
type Request struct {
	Verb   string   `json:"verb"`
	Names  []string `json:"names,omitempty"`  // of listeners
	Socket string   `json:"socket,omitempty"` // NOTIFY_SOCKET of the new supervisor
}

// A Reply is the answer, or a part of it.
type Reply struct {
	Error  string   `json:"error,omitempty"`
	Reason string   `json:"reason,omitempty"`
	Names  []string `json:"names,omitempty"` // one for each descriptor
	More   bool     `json:"more,omitempty"`  // another one follows
}

// Path is the path of the socket beside that of a control socket.
func Path(control string) string { return control + ".fd" }
