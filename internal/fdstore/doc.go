// Package fdstore is the daemon's side of systemd's descriptor store: it leaves
// copies of descriptors with the service manager (sd_notify(3), FDSTORE=1),
// takes them away again (FDSTOREREMOVE=1), and gets them back when it is started
// the next time (LISTEN_FDS, sd_listen_fds(3)). `sockmgr supervise` speaks the
// other side of it, as systemd does, with what is in message.go, receive.go and
// environ.go.
package fdstore
