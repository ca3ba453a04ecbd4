// Package mux turns descriptor readiness into calls on one goroutine.
//
// A [Poller] asks the kernel which descriptors can make progress. There are
// three, one file each, alike but for the system call: epoll, poll and select.
// A [Loop] owns one Poller and calls a [Handler] for every descriptor that is
// ready. Everything a Handler does happens on the loop's goroutine, so state
// that only handlers touch needs no lock.
//
// One turn of the loop:
//
//	    +------------------------------------------------------+
//	    v                                                      |
//	  wait ----> call ready ----> call due ----> call what was |
//	(kernel)     handlers         timers         posted before-+
//
// Each step is bounded, so one busy descriptor, timer or poster cannot starve
// the others: a Handler is told at most once a turn and does a bounded amount
// of work (the kernel tells it again), a timer that sets itself waits for the
// next turn, and so does a func that posts itself.
//
// Who may call what: [Loop.Post], [Loop.Do] and [Loop.Stop] are for every
// goroutine; all other methods of a Loop are for its own goroutine, or for
// the goroutine that made it, before Run.
//
// Readiness is level-triggered and has two bits. Errors and hang-ups are both
// bits at once: the next read or write tells the story, so there is one error
// path. An event names a registration ([Key]), not a number: when a handler
// closes a descriptor and the kernel gives its number to another, what was
// reported for the old one is dropped.
//
// The package logs nothing and knows nothing of sockets.
package mux
