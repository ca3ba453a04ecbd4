package cli

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export [NAME...]",
		Short: "Print listeners as manifests that apply takes back",
		Long: "export prints what was asked for, of all listeners or those named: labels, annotations and spec, as YAML\n" +
			"documents in the order of their names. With -o json it prints the same fields as the API has them.",
		Example: "  sockctl export > listeners.yaml\n" +
			"  sockctl export web | sockctl --addr unix:///run/other.sock apply -f -",
		ValidArgsFunction: a.completeListeners,
		RunE:              a.run(a.export),
	}
}

func (a *app) export(ctx context.Context, names []string) error {
	api, err := a.dial()
	if err != nil {
		return err
	}
	var found []*pb.Listener
	var part error
	if len(names) == 0 {
		found, err = api.allListeners(ctx, "", pb.ListenerView_LISTENER_VIEW_BASIC)
		if err != nil {
			return err
		}
	} else {
		part = a.each(ctx, unique(names), func(id string) error {
			l, err := api.listener(ctx, id, pb.ListenerView_LISTENER_VIEW_BASIC)
			if err == nil {
				found = append(found, l)
			}
			return err
		})
		if part != nil && len(found) == 0 {
			return part
		}
	}
	if err := a.printManifests(found); err != nil {
		return err
	}
	return part
}

func (a *app) printManifests(all []*pb.Listener) error {
	slices.SortFunc(all, func(x, y *pb.Listener) int { return cmp.Compare(x.GetName(), y.GetName()) })
	var text bytes.Buffer
	if err := writeManifests(&text, all); err != nil {
		return err
	}
	v := view{
		tree: func() any {
			items := make([]any, len(all))
			for i, l := range all {
				items[i] = messageTree((&pb.Listener{
					Name: l.GetName(), Labels: l.GetLabels(), Annotations: l.GetAnnotations(), Spec: l.GetSpec(),
				}).ProtoReflect(), true)
			}
			return object{{"listeners", items}}
		},
		text: func(w *bytes.Buffer, _ bool) { w.Write(text.Bytes()) },
	}
	for _, l := range all {
		v.names = append(v.names, listenerID(l.GetName()))
	}
	if a.output == "yaml" {
		a.output = "table" // manifests are YAML in every form for people
	}
	return a.print(v)
}
