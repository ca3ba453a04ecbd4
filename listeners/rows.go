package listeners

// Most listeners set no option. What is to be done for those is worked out once:
// opening ten thousand of them asks the table once, and not eighty rows for each.

// defaultTunables are the daemon's own settings where nobody asked for others. Not
// to be changed.
var defaultTunables = func() (t Tunables) {
	for _, o := range Options {
		if o.tunable != nil {
			*o.tunable(&t) = o.number(o.Default)
		}
	}
	return t
}()

// defaultRows are what is set on sockets of which nothing was asked.
var defaultRows = rowsOf(func(o *Option) bool { return o.OnSocket() && o.Default.typ != Null })

// lateRows are what listen(2) takes back.
var lateRows = rowsOf(func(o *Option) bool { return o.late })

func rowsOf(so func(*Option) bool) (some []*Option) {
	for _, o := range Options {
		if so(o) {
			some = append(some, o)
		}
	}
	return some
}

// socketRows are the rows that may have something to set on a new socket, in the
// order of the table.
func (s Spec) socketRows() []*Option {
	if len(s.Options) == 0 {
		return defaultRows
	}
	return s.rows()
}
