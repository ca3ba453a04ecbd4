// Package supervise is `sockmgr supervise`: a small process that starts the
// daemon, has copies of its sockets, starts it again when it dies, and hands
// them to the next one. It speaks the service manager's side of systemd's
// descriptor store (sd_notify(3)); the daemon knows no difference.
//
//	supervisor --- starts, LISTEN_FDS -----> daemon
//	           <-- FDSTORE, READY, ... -----
//
// It does nothing else, so that there is little in it that could fail: whatever
// goes wrong with a message costs that message. It imports neither gRPC nor
// anything of the daemon.
package supervise
