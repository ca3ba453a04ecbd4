package cli

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) tuneCommand() *cobra.Command {
	var scope string
	c := &cobra.Command{
		Use:   "tune NAME|CONN-ID OPTION=VALUE...",
		Short: "Change options of a live listener or connection",
		Long: "tune sets options and shows, for each, what was asked, what was there, what the kernel says now and the\n" +
			"outcome. A value of null sets the default back. 'sockctl options' lists what can be set.",
		Example: "  sockctl tune web backlog=4096 idle_timeout=30s receive_buffer_bytes=4MiB\n" +
			"  sockctl tune web tcp.no_delay=null --scope listener",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeTune,
	}
	c.Flags().StringVar(&scope, "scope", "all", "what of a listener: all, listener (and connections to come) or connections (that are open)")
	must(c.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions(
		slices.Sorted(maps.Keys(scopes)), cobra.ShellCompDirectiveNoFileComp)))
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		where, ok := scopes[scope]
		if !ok {
			return usagef("--scope %q: want all, listener or connections", scope)
		}
		options, err := parseOptions("option", args[1:])
		if err != nil {
			return err
		}
		results, err := a.tune(ctx, args[0], where, options)
		if err != nil {
			return err
		}
		if err := a.printResults(results); err != nil {
			return err
		}
		return tuned(args[0], results)
	})
	return c
}

// scopes are the words of --scope. Never written to.
var scopes = map[string]pb.TuningScope{
	"all":         pb.TuningScope_TUNING_SCOPE_ALL,
	"listener":    pb.TuningScope_TUNING_SCOPE_LISTENER,
	"connections": pb.TuningScope_TUNING_SCOPE_OPEN_CONNECTIONS,
}

// tune sets options of what id means: a listener, else a connection.
func (a *app) tune(ctx context.Context, id string, scope pb.TuningScope, options map[string]*structpb.Value) ([]*pb.OptionResult, error) {
	api, err := a.dial()
	if err != nil {
		return nil, err
	}
	target := listenerName(id)
	switch {
	case isPeer(id):
		conn, err := api.connection(ctx, id)
		if err != nil {
			return nil, err
		}
		target = conn.GetName()
	case strings.HasPrefix(id, connections):
		target = id
	}
	set := func(target string) ([]*pb.OptionResult, error) {
		resp, err := api.tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: target, Options: options, Scope: scope})
		return resp.GetResults(), err
	}
	results, err := set(target)
	if a.missing(err) && target != id && isCookie(id) {
		if results, err = set(connectionName(id)); a.missing(err) {
			err = failf(codes.NotFound, "no listener or connection is called %s", id).try("sockctl ls; sockctl conn ls")
		}
	}
	return results, err
}

func (a *app) printResults(results []*pb.OptionResult) error {
	v := view{tree: func() any { return list("results", results) }}
	t := newTable("OPTION", "TARGET", "ASKED", "WAS", "NOW", "OUTCOME")
	for _, r := range results {
		v.names = append(v.names, r.GetName())
		t.row(r.GetName(), targetText(r), valueText(r.GetRequested()), valueText(r.GetPrevious()),
			valueText(r.GetEffective()), word(r.GetOutcome()))
	}
	v.text = func(w *bytes.Buffer, _ bool) { t.write(w) }
	if err := a.print(v); err != nil {
		return err
	}
	said := map[string]bool{} // rows of listener and connections may say the same
	for _, r := range results {
		words := r.GetMessage()
		if r.GetErrno() != "" && !mentions(words, r.GetErrno()) {
			words = strings.TrimSpace(words + " (" + r.GetErrno() + ")")
		}
		words = r.GetName() + ": " + words
		if words != r.GetName()+": " && !said[words] && !a.structured() {
			said[words] = true
			a.note("%s", words)
		}
	}
	return nil
}

// targetText returns what a row is about.
func targetText(r *pb.OptionResult) string {
	if n := r.GetConnections(); n > 0 {
		return plural(n, "connection")
	}
	return connectionID(listenerID(r.GetTarget()))
}

// tuned returns how it went as a whole.
func tuned(id string, results []*pb.OptionResult) error {
	var names []string
	failed := 0
	reason := ""
	for _, r := range results {
		switch r.GetOutcome() {
		case pb.OptionResult_OUTCOME_NEEDS_REBIND:
			reason = "OPTION_NEEDS_REBIND"
		case pb.OptionResult_OUTCOME_FAILED:
		default:
			continue
		}
		failed++
		if !slices.Contains(names, r.GetName()) {
			names = append(names, r.GetName())
		}
	}
	if failed == 0 {
		return nil
	}
	if failed == len(results) {
		f := failf(codes.FailedPrecondition, "%s: not set: %s", connectionID(listenerID(id)), strings.Join(names, ", "))
		f.reason = reason
		return f
	}
	return &failure{
		exit: exitPartDone, reason: reason,
		message: connectionID(listenerID(id)) + ": part is set, part is not: " + strings.Join(names, ", "),
	}
}
