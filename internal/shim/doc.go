// Package shim is what stands between the daemon and a program that it starts:
// this very executable, run under a name that nobody else gives it, which gives
// up what the program shall not have, and becomes the program. Go can do none of
// that between fork and exec.
//
//	daemon                                   shim
//	Prepare: a socket pair
//	Fork (on a thread that does not end) --> started: no environment, descriptors
//	                                         of the program and its end of the pair
//	Wait: the Program as JSON -------------> umask, descriptors, user, capabilities,
//	                                         no_new_privs, directory, signals
//	      what failed, or the end of file <- execve closes the pair
//
// With Wrap it does nothing but to set LISTEN_PID, for whoever starts a program
// with rights of its own: see there.
package shim
