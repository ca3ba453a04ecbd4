package service

import (
	"context"
	"maps"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// Raw options go by no table that says what they do, so changing one asks for
// more than changing others: the role of an admin. Methods have one role each;
// this is looked at inside of them.

// mayTuneRaw refuses raw options in a change by anybody else.
func mayTuneRaw(ctx context.Context, values map[string]listeners.Value) error {
	for name := range values {
		if who := callerOf(ctx); listeners.IsRaw(name) && who.granted < pb.Role_ROLE_ADMIN {
			return roleMissing(who, "change the raw option "+name, pb.Role_ROLE_ADMIN)
		}
	}
	return nil
}

// withoutRaw refuses an edit that changes raw options, by anybody else. One
// that leaves those be that are there is as good as any.
func withoutRaw(ctx context.Context, edit func(*manager.Draft) error) func(*manager.Draft) error {
	return func(d *manager.Draft) error {
		before := rawOf(d.Options)
		if err := edit(d); err != nil {
			return err
		}
		after := rawOf(d.Options)
		if len(before)+len(after) == 0 {
			return nil
		}
		changed := map[string]listeners.Value{}
		maps.Copy(changed, before)
		maps.Copy(changed, after)
		maps.DeleteFunc(changed, func(name string, _ listeners.Value) bool {
			was, had := before[name]
			is, has := after[name]
			return had == has && was.String() == is.String() // saved ones have another type than those that are sent
		})
		return mayTuneRaw(ctx, changed)
	}
}

func rawOf(values map[string]listeners.Value) (raw map[string]listeners.Value) {
	for name, v := range values {
		if !listeners.IsRaw(name) {
			continue
		}
		if raw == nil {
			raw = map[string]listeners.Value{}
		}
		raw[name] = v
	}
	return raw
}
