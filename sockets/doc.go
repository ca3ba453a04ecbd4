// Package sockets keeps the sockets that clients make: the ordinary socket
// calls, on descriptors that live on the daemon's loop.
//
// A [Table] has them all. Each is owned by the loop, never blocks, and has two
// lines of calls that wait, one to read and one to write:
//
//	client --Recv--> try --EAGAIN--> reading: [Recv, Recv] <--Readable-- loop
//	client --Send--> try --EAGAIN--> writing: [Send]       <--Writable-- loop
//	client --Poll------------------> polls:   [Poll]       <--any------- loop
//
// A call asks the kernel once. What the kernel answers is the answer, unless it
// is "not yet" and the socket's timeout lets the call wait: then it stands in
// line until the poller says so, its time runs out, or its client goes away. A
// descriptor is waited for only while a call waits for it.
//
// What a call took from the kernel for a client who was gone by then is not
// lost: connections and bytes go back to the front, in the order in which they
// were taken, and the next call is given them.
//
// Methods of a Table may be called from any goroutine but the loop's; all else
// is for the loop only.
package sockets
