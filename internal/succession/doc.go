// Package succession is what a daemon and the program that is to take its place
// say to each other: over a socket pair that keeps message boundaries
// (unixpacket), one end of which the new program is started with. A message is
// JSON, with descriptors (SCM_RIGHTS).
//
//	old                                new
//	    <-- hello      version
//	    --> begin      its own sockets, a copy of the store
//	    <-- valid      or an error
//	    --> store      is free
//	    <-- open       it is, by the new one
//	    --> estate     a file in memory, with all that is to be gone on with
//	    --> files ...  253 descriptors at a time
//	    --> part       so much is written: it is taken up while the next is made
//	    ...
//	    --> whole      that was the last
//	    <-- taken      or an error
//	    --> go         from here on the new program serves
//	    --> told       the service manager knows who its daemon is
//
// Until go, whatever goes wrong on either side leaves the old one serving: the
// end of the conversation, an error, silence beyond a deadline. After go the old
// one has nothing left to serve.
package succession

// Protocol is that of this program, and of what goes over in the estate. It grows
// with every change that a program of another version would misunderstand.
const Protocol = 3

// Variable names the descriptor of the new program's end.
const Variable = "SOCKMGR_SUCCEED"

// A Step is what a message says.
type Step string

// The steps.
const (
	Hello  Step = "hello"
	Begin  Step = "begin"
	Valid  Step = "valid"
	Store  Step = "store"
	Open   Step = "open"
	Files  Step = "files"
	Estate Step = "estate"
	Part   Step = "part"
	Whole  Step = "whole"
	Taken  Step = "taken"
	Go     Step = "go"
	Told   Step = "told"
	Failed Step = "failed"
)

// A Former is a process that was the daemon once: see access.Process.
type Former struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// A Message is one of them.
type Message struct {
	Step     Step   `json:"step"`
	Protocol int    `json:"protocol,omitempty"` // hello
	Version  string `json:"version,omitempty"`  // hello
	Error    string `json:"error,omitempty"`    // failed

	// Of begin; its descriptors are the sockets, and then the copy of the store.
	Names     []string `json:"names,omitempty"` // of the sockets, as they are stored
	Store     string   `json:"store,omitempty"` // where it is; a copy comes if it is a file
	Epoch     int64    `json:"epoch,omitempty"` // of the loop's clock
	LongNames bool     `json:"long_names,omitempty"`
	Former    []Former `json:"former,omitempty"` // the daemons before, which may serve still what cannot move

	Size int `json:"size,omitempty"` // part: bytes of the file that it has

	Socket string `json:"socket,omitempty"` // told: where the service manager listens
}
