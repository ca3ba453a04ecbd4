package cli

import (
	"bytes"
	"context"
	"slices"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) diffCommand() *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Show how listeners differ from manifests",
		Long: "diff shows what apply would change, and changes nothing: + is not there, ~ differs, - would be pruned.\n" +
			"Who applied a listener is no difference.\n\n" +
			"Exit codes: 0 all is as the manifests say, 1 something differs, 2 and more trouble.",
		Example: "  sockctl diff -f web.yaml\n" +
			"  sockctl export | sockctl diff -f -",
	}
	f.register(c)
	c.Flags().BoolVar(&f.prune, "prune", false, "show what --prune of apply would remove, too")
	c.RunE = a.run(func(ctx context.Context, _ []string) error {
		differs, err := a.diff(ctx, &f)
		if err == nil && differs {
			return &failure{exit: exitFailed, shown: true}
		}
		if err == nil {
			return nil
		}
		trouble := a.explain(err)
		if trouble.exit == exitFailed { // is taken: it says that they differ
			trouble.exit = exitUsage
		}
		return trouble
	})
	return c
}

// diff prints what differs, and reports whether anything does.
func (a *app) diff(ctx context.Context, f *applyFlags) (bool, error) {
	ms, api, err := a.wanted(ctx, f)
	if err != nil {
		return false, err
	}
	// What takes a flag of apply is a difference all the same.
	changes, sent := a.send(ctx, api, ms, &pb.ApplyListenersRequest{
		Listeners: ms.listeners(), Manager: ms.owner, Prune: f.prune, Force: true, AllowRebind: true, ValidateOnly: true,
	})
	if sent != nil && len(changes) == 0 {
		return false, sent
	}
	a.tellOwners(changes)
	shown := slices.DeleteFunc(slices.Clone(changes), func(c *pb.ListenerChange) bool { return !differs(c) })
	if err := a.printDiff(shown); err != nil {
		return false, err
	}
	b := &batch{a: a}
	a.reportChanges(b, ms, changes)
	if sent == nil {
		sent = b.failure()
	}
	return len(shown) > 0, sent
}

// tellOwners says which differences apply makes only with --force.
func (a *app) tellOwners(changes []*pb.ListenerChange) {
	for _, c := range changes {
		i := slices.IndexFunc(c.GetFields(), func(f *pb.FieldChange) bool { return f.GetPath() == "manager" && jsonText(f.GetBefore()) != "" })
		if i >= 0 && inPlace(c) && len(c.GetFields()) > 1 {
			a.note("%s was applied by %s: apply takes --force", listenerID(c.GetName()), jsonText(c.GetFields()[i].GetBefore()))
		}
	}
}

// differs drops the owner from a change, which is not what a manifest says, and
// reports whether anything is left.
func differs(c *pb.ListenerChange) bool {
	c.Fields = slices.DeleteFunc(c.Fields, func(f *pb.FieldChange) bool { return f.GetPath() == "manager" })
	return isChange(c) && (!inPlace(c) || len(c.GetFields()) > 0)
}

func (a *app) printDiff(changes []*pb.ListenerChange) error {
	v := view{tree: func() any { return list("changes", changes) }}
	var rows [][]string
	for _, c := range changes {
		id := listenerID(c.GetName())
		v.names = append(v.names, id)
		sign := map[pb.ListenerChange_Action]string{
			pb.ListenerChange_ACTION_CREATED: "+ ", pb.ListenerChange_ACTION_DELETED: "- ",
		}[c.GetAction()]
		if sign != "" {
			rows = append(rows, []string{sign + clean(id)})
			continue
		}
		for _, line := range fieldLines(c) {
			rows = append(rows, []string{"~ " + clean(id), clean(line)})
		}
	}
	v.text = func(w *bytes.Buffer, _ bool) { layOut(w, "", rows) }
	return a.print(v)
}
