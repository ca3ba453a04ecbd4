// Package client uses the sockets of a sockmgr daemon as one's own.
//
// [Client.Listen] takes the connections of a listener, or of a socket made for
// it, and [Client.DialContext] connects from the daemon's host: what they return
// are a [net.Listener] and [net.Conn], so that http.Serve, http.Client and
// everything else that is written for them works through the daemon. The
// descriptors live in the daemon; bytes come over one gRPC connection, with
// back-pressure both ways. [Client.GRPC] is for all the other services.
//
// An error of a socket call is a *net.OpError with the errno that the kernel
// gave to the daemon: errors.Is(err, syscall.ECONNREFUSED) works as usual.
package client
