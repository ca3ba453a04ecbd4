package sockets

import (
	"context"

	"github.com/sockmgr/sockmgr/listeners"
)

// SetOptions is setsockopt(2), one after another; each tells what came of it.
func (t *Table) SetOptions(ctx context.Context, who Caller, id string, values map[string]listeners.Value) (results []listeners.Result, err error) {
	err = t.with(ctx, who, id, func(s *Socket) error {
		options, err := parseOptions(values, s.Network)
		for _, o := range options {
			results = append(results, s.tune(o))
		}
		return err
	})
	return results, err
}

func (s *Socket) tune(o option) listeners.Result {
	if s.conn != nil { // its listener's connection knows what its end has to heed
		if r, found := s.t.set.TuneConn(s.FD, s.id, o.row, o.value); found {
			return r
		}
	}
	return s.Tune(o.row, o.value)
}

// Options is getsockopt(2): of those named, or of all that the socket has.
func (t *Table) Options(ctx context.Context, who Caller, id string, names []string) (values map[string]listeners.Value, err error) {
	err = t.with(ctx, who, id, func(s *Socket) error {
		values = s.InForce(names)
		return nil
	})
	return values, err
}

// parseOptions checks options for a socket of n.
func parseOptions(values map[string]listeners.Value, n listeners.Network) (options []option, err error) {
	for name, value := range values {
		v, err := listeners.ParseOption(name, value, n.Class())
		if err != nil {
			for _, v := range listeners.Violations(err) {
				v.Field = "options." + name // in this request it stands elsewhere
			}
			return nil, err
		}
		row := listeners.LookupOption(name)
		if !row.OnSocket() || row.Name == "backlog" || row.Name == "unix.mode" {
			return nil, &listeners.Violation{Field: "options." + name, Message: "is of listeners, not of a socket"}
		}
		options = append(options, option{row, v})
	}
	return options, nil
}
