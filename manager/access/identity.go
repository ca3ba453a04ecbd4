package access

import (
	"fmt"
	"strings"
)

// A Role is what a caller must hold to call a method. Each includes those
// before it. The numbers are those of the API.
type Role uint8

// The roles.
const (
	Nobody Role = iota
	Viewer
	Data
	Operator
	Admin
)

// Roles are the words of the roles that can be given. Never written to.
var Roles = []string{Viewer: "viewer", Data: "data", Operator: "operator", Admin: "admin"}

// String is the word.
func (r Role) String() string {
	if r == Nobody || int(r) >= len(Roles) {
		return "nobody"
	}
	return Roles[r]
}

// An Identity is who calls: a user of this host, or the holder of a
// certificate.
type Identity struct {
	IsUser bool // UID, GIDs and PID say who
	UID    uint32
	GIDs   []uint32
	PID    int32 // for people only: it may be another process by now

	// Names are those of the certificate, each with its kind: uri:, dns: or
	// email:, in this order.
	Names []string
}

// String is how the identity is written in messages, in the log and as the
// owner of sockets: uid:1000, or cert: and the first name of the certificate.
func (i Identity) String() string {
	switch {
	case i.IsUser:
		return fmt.Sprintf("uid:%d", i.UID)
	case len(i.Names) > 0:
		_, name, _ := strings.Cut(i.Names[0], ":")
		return "cert:" + name
	}
	return "nobody"
}
