package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) optionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "options [NAME]",
		Short: "Show what can be tuned, and how",
		Long: "options lists what can be tuned on this host. With the name of an option it shows that one in detail,\n" +
			"with the name of a listener the options in force on it.",
		Example: "  sockctl options\n" +
			"  sockctl options backlog\n" +
			"  sockctl options web",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeOptionsArg,
		RunE: a.run(func(ctx context.Context, args []string) error {
			api, err := a.dial()
			if err != nil {
				return err
			}
			request := &pb.ListOptionsRequest{}
			if len(args) > 0 && strings.HasPrefix(args[0], "so:") { // is in no list
				request.Names = args
			}
			resp, err := api.tuning.ListOptions(ctx, request)
			if err != nil {
				return err
			}
			all := resp.GetOptions()
			if len(args) == 0 {
				return a.printOptions(all)
			}
			name := args[0]
			for _, o := range all {
				if o.GetName() == name || request.Names != nil {
					return a.printOption(o)
				}
			}
			return a.printInForce(ctx, api, name, all)
		}),
	}
}

func optionNames(all []*pb.OptionSpec) []string {
	var names []string
	for _, o := range all {
		names = append(names, o.GetName())
	}
	return names
}

// printOptions prints the catalogue.
func (a *app) printOptions(all []*pb.OptionSpec) error {
	return a.print(view{
		tree:  func() any { return list("options", all) },
		names: optionNames(all),
		text: func(w *bytes.Buffer, wide bool) {
			head := []string{"NAME", "TYPE", "EFFECT", "DEFAULT", "CLAMPED BY"}
			if wide {
				head = append(head, "KERNEL NAME", "NETWORKS", "RANGE", "INHERITED", "CAPABILITY", "SUPPORTED")
			}
			t := newTable(append(head, "SUMMARY")...)
			for _, o := range all {
				cells := []string{
					o.GetName(), word(o.GetType()), word(o.GetEffect()), defaultText(o), clampText(o),
				}
				if wide {
					cells = append(cells, o.GetKernelName(), networkText(o), rangeText(o),
						yes(o.GetInherited()), o.GetCapability(), yes(o.GetSupported()))
				}
				t.row(append(cells, o.GetSummary())...)
			}
			t.write(w)
		},
	})
}

// printOption prints one in detail.
func (a *app) printOption(o *pb.OptionSpec) error {
	return a.print(view{
		tree:  func() any { return list("options", []*pb.OptionSpec{o}) },
		names: []string{o.GetName()},
		text: func(w *bytes.Buffer, _ bool) {
			s := &section{title: "option " + o.GetName()}
			s.add("summary", o.GetSummary())
			s.add("type", word(o.GetType()))
			s.add("takes effect", word(o.GetEffect()))
			s.add("default", defaultText(o))
			s.add("range", rangeText(o))
			s.add("networks", networkText(o))
			if o.GetKernelName() != "" {
				s.add("kernel", fmt.Sprintf("%s (level %d, option %d)", o.GetKernelName(), o.GetLevel(), o.GetOption()))
			}
			s.add("clamped by", clampText(o))
			s.add("capability", o.GetCapability())
			s.add("inherited", yes(o.GetInherited()))
			s.add("supported here", yes(o.GetSupported()))
			sections(w, s)
		},
	})
}

// printInForce prints what is in force on a listener beside the default.
func (a *app) printInForce(ctx context.Context, api *client, name string, all []*pb.OptionSpec) error {
	resp, err := api.tuning.GetOptions(ctx, &pb.GetOptionsRequest{Target: listenerName(name)})
	if a.missing(err) {
		return failf(codes.NotFound, "no option or listener is called %s", name).try("sockctl options; sockctl ls")
	}
	if err != nil {
		return err
	}
	values := resp.GetOptions()
	here := slices.DeleteFunc(slices.Clone(all), func(o *pb.OptionSpec) bool { return values[o.GetName()] == nil })
	return a.print(view{
		tree:  func() any { return object{{"options", inForceTree(here, values)}} },
		names: optionNames(here),
		text: func(w *bytes.Buffer, _ bool) {
			t := newTable("NAME", "IN FORCE", "DEFAULT", "EFFECT", "SUMMARY")
			for _, o := range here {
				t.row(o.GetName(), valueText(values[o.GetName()]), defaultText(o), word(o.GetEffect()), o.GetSummary())
			}
			t.write(w)
		},
	})
}

func inForceTree(options []*pb.OptionSpec, values map[string]*structpb.Value) []any {
	items := make([]any, len(options))
	for i, o := range options {
		items[i] = append(tree(o), member{"inForce", optionTree(values[o.GetName()])})
	}
	return items
}

// defaultText is the default; one that is not there, or null, is the kernel's
// choice.
func defaultText(o *pb.OptionSpec) string {
	if s := valueText(o.GetDefaultValue()); s != "null" {
		return s
	}
	return none
}

func clampText(o *pb.OptionSpec) string {
	if o.GetClampedBy() == "" {
		return ""
	}
	if o.GetClampValue() == 0 { // it cannot be read there, as in some containers
		return o.GetClampedBy()
	}
	return fmt.Sprintf("%s=%d", o.GetClampedBy(), o.GetClampValue())
}

// rangeText is the bounds, or the words that there are.
func rangeText(o *pb.OptionSpec) string {
	if len(o.GetChoices()) > 0 {
		return strings.Join(o.GetChoices(), ",")
	}
	if o.Min == nil && o.Max == nil {
		return ""
	}
	bound := func(n int64) string {
		if o.GetType() == pb.OptionSpec_TYPE_DURATION { // in nanoseconds
			return time.Duration(n).String()
		}
		return fmt.Sprint(n)
	}
	text := ".."
	if o.Min != nil {
		text = bound(o.GetMin()) + text
	}
	if o.Max != nil {
		text += bound(o.GetMax())
	}
	return text
}

func networkText(o *pb.OptionSpec) string {
	var words []string
	for _, n := range o.GetNetworks() {
		words = append(words, word(n))
	}
	return strings.Join(words, ",")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
