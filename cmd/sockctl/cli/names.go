package cli

import (
	"net/netip"
	"strconv"
	"strings"
)

const (
	listeners   = "listeners/"
	connections = "connections/"
	sockets     = "sockets/"
)

// The API names things listeners/web and connections/1f; people say web and
// 1f, and may say the whole.

func listenerName(id string) string   { return listeners + listenerID(id) }
func listenerID(name string) string   { return strings.TrimPrefix(name, listeners) }
func connectionName(id string) string { return connections + connectionID(id) }
func connectionID(name string) string { return strings.TrimPrefix(name, connections) }
func socketID(name string) string     { return strings.TrimPrefix(name, sockets) }

// isCookie reports whether s can be the id of a connection or a socket. It
// can be the id of a listener too.
func isCookie(s string) bool {
	_, err := strconv.ParseUint(s, 16, 64)
	return err == nil && !strings.ContainsAny(s, "+-_")
}

// isPeer reports whether s is the remote address of a connection, which no
// id of a listener can be.
func isPeer(s string) bool {
	_, err := netip.ParseAddrPort(s)
	return err == nil
}

// quote makes a string of an AIP-160 filter.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
