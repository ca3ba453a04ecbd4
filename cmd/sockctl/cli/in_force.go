package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// inForce is the options of a listener or a connection, as the kernel and the
// daemon have them.
type inForce struct {
	values   map[string]*structpb.Value
	defaults map[string]*structpb.Value
}

// inForce returns the options of a target. They are one part of many: without
// them the rest is still worth printing.
func (a *app) inForce(ctx context.Context, api *client, target string) *inForce {
	resp, err := api.tuning.GetOptions(ctx, &pb.GetOptionsRequest{Target: target})
	if err != nil {
		a.note("options in force of %s: %s", target, a.explain(err).message)
		return &inForce{}
	}
	o := &inForce{values: resp.GetOptions(), defaults: map[string]*structpb.Value{}}
	if a.structured() || a.output == "wide" {
		return o // nothing is left out
	}
	table, err := api.tuning.ListOptions(ctx, &pb.ListOptionsRequest{})
	if err != nil {
		a.note("defaults of options: %s", a.explain(err).message)
		return o
	}
	for _, row := range table.GetOptions() {
		o.defaults[row.GetName()] = row.GetDefaultValue()
	}
	return o
}

// section shows what is not the default, and how much is.
func (o *inForce) section(wide bool) *section {
	if wide {
		return optionSection("options in force", o.values)
	}
	other := map[string]*structpb.Value{}
	for name, value := range o.values {
		if !proto.Equal(value, o.defaults[name]) {
			other[name] = value
		}
	}
	s := optionSection("options in force, other than the default", other)
	if same := len(o.values) - len(other); same > 0 {
		s.add(fmt.Sprintf("(%d more)", same), "at their default; -o wide shows them")
	}
	return s
}

// withOptions puts the options in force behind a message.
func withOptions(o object, options *inForce) object {
	return append(o, member{"optionsInForce", mapTree(options.values, optionTree)})
}

func optionSection(title string, options map[string]*structpb.Value) *section {
	s := &section{title: title}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		s.add(name, "= "+valueText(options[name]))
	}
	return s
}
