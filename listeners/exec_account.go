package listeners

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/shim"
)

// An account is whom a program runs as.
type account struct {
	as   *shim.User // nil: the daemon's user
	name string
	home string
}

// accountOf looks a user up by name or number; "" is the daemon's. It reads
// files. A number that has no name is a group too.
func accountOf(who string) (account, error) {
	if who == "" {
		return account{}, nil
	}
	u, err := user.Lookup(who)
	id, notNumber := strconv.ParseUint(who, 10, 32)
	if err != nil && notNumber == nil && id < math.MaxUint32 {
		if u, err = user.LookupId(who); err != nil {
			u, err = &user.User{Uid: who, Gid: who, Username: who, HomeDir: "/"}, nil
		}
	}
	if _, unknown := errors.AsType[user.UnknownUserError](err); unknown {
		return account{}, fmt.Errorf("there is no user %s", who)
	}
	if err != nil {
		return account{}, fmt.Errorf("user %s cannot be looked up: %w", who, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, err
	}
	a := account{name: u.Username, home: u.HomeDir}
	if !maySwitch() {
		if int(uid) == os.Geteuid() {
			return a, nil
		}
		return a, &Fault{
			Reason:  CapabilityMissing,
			Message: fmt.Sprintf("to run a program as user %s takes CAP_SETUID and CAP_SETGID, which the daemon does not have", who),
			Fix:     "run the daemon as root, or leave the user out",
			Meta:    map[string]string{"capability": "CAP_SETUID"},
		}
	}
	a.as = &shim.User{UID: uint32(uid), GID: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil {
		groups = nil // its own is enough for one that is in no file
	}
	for _, text := range groups {
		if g, err := strconv.ParseUint(text, 10, 32); err == nil {
			a.as.Groups = append(a.as.Groups, uint32(g))
		}
	}
	return a, nil
}

// maySwitch reports whether the daemon can become another user.
func maySwitch() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return os.Geteuid() == 0
	}
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return data[0].Effective&need == need
}
