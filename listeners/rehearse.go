package listeners

import "golang.org/x/sys/unix"

// Rehearse finds out, on new sockets that are bound to nothing, what the kernel
// says to an option of a listener at the addresses of spec: Failed, Clamped,
// Unchanged where they have it anyway, or Applied. The outcome is 0 where only
// the change itself can tell. It touches no loop.
func Rehearse(spec Spec, o *Option, v Value) Result {
	r := Result{Option: o, Requested: v}
	if o.Name == backlog { // listen(2) sets it, and never refuses it
		if n, ok := o.ClampValue(); ok && v.typ != Null && v.n > n {
			r.Outcome, r.Message = Clamped, o.clampMessage(v)
		}
		return r
	}
	if !o.OnSocket() || o.Name == unixMode || o.late || v.typ == Null {
		return r
	}
	type kind struct{ family, sock int }
	seen := map[kind]bool{}
	for _, a := range spec.Listen {
		_, family, err := a.sockaddr()
		k := kind{family, a.Network.kind().sock}
		if err != nil || seen[k] {
			continue
		}
		seen[k] = true
		one := Result{Option: o, Requested: v}
		if one.rehearse(a, k.family, k.sock); one.Outcome == Failed {
			return one
		}
		if r.Outcome == 0 || one.Outcome == Clamped { // one Result speaks for all
			r = one
		}
	}
	return r
}

func (r *Result) rehearse(a Address, family, sock int) {
	fd, err := unix.Socket(family, sock|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return // it cannot be told
	}
	defer sysClose(fd)
	s := &socket{fd: fd, family: family, asked: a, addr: a}
	if !r.Option.isFor(s) {
		return
	}
	if r.Previous, err = r.Option.Get(s); err != nil && !r.Option.IsRaw() {
		r.fail(err)
		return
	}
	if err = r.Option.Set(s, r.Requested); err != nil {
		r.fail(err)
		return
	}
	if r.Effective, err = r.Option.Get(s); err != nil {
		return // some can only be set
	}
	if r.Option.IsRaw() {
		r.likeAsked()
	}
	if r.Outcome = outcome(r); r.Outcome == Clamped {
		r.Message = r.Option.clampMessage(r.Requested)
	}
}
