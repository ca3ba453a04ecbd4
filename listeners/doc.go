// Package listeners binds sockets and serves them on a [mux.Loop].
//
// A [Spec] says what is wanted: addresses, a handler, options. [Open] turns it
// into a [Listener] with bound sockets, on any goroutine, without touching a
// loop. [Listener.Attach] puts it on a [Set], and from then on everything but
// the Spec belongs to the loop of that Set:
//
//	Spec --Open--> Listener --Attach--> Set ------------ mux.Loop
//	                  |                  shared by all:   buffers, descriptor
//	                  +-- streamSocket                    budget, datagram batch
//	                  |      +-- conn --> Handler
//	                  +-- packetSocket -> Handler
//
// A stream socket accepts connections, at most so many a turn. A connection
// reads once for each readiness into the one buffer of the Set and offers what
// came to its [Handler]. What the handler writes goes to the kernel at once;
// what the kernel does not take is kept, and until it has gone the connection
// waits to write instead of to read. That is all there is to back-pressure: it
// reaches the sender through the transport's own window. So does a connection
// that has had its part of a turn and has more to be answered.
//
// Everything that can be tuned is a row of one table, [Options], from which
// validation, setting, reading back, help and documentation are made.
//
// What the package reports is what the kernel says: see [Listener.Status] and
// [Set.Conns].
package listeners
