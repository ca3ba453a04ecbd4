package cli

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) tuneCommand() *cobra.Command {
	var scope string
	var try tryFlags
	c := &cobra.Command{
		Use:   "tune NAME|CONN-ID OPTION=VALUE... | --confirm ID | --revert ID",
		Short: "Change options of a live listener or connection",
		Long: "tune sets options and shows, for each, what was asked, what was there, what the kernel says now and the\n" +
			"outcome. A value of null sets the default back. 'sockctl options' lists what can be set; so:LEVEL:NAME\n" +
			"is any other option of setsockopt(2). With --try the old values come back by themselves after that time,\n" +
			"and after a restart of the daemon, unless --confirm ID keeps the new ones: for a change that may cut you off.",
		Example: "  sockctl tune web backlog=4096 idle_timeout=30s receive_buffer_bytes=4MiB\n" +
			"  sockctl tune web tcp.no_delay=null --scope listener\n" +
			"  sockctl tune web tcp.user_timeout=5s --try 60s\n" +
			"  sockctl tune --confirm 1a2b3c4d",
		Args:              try.args,
		ValidArgsFunction: a.completeTune,
	}
	c.Flags().StringVar(&scope, "scope", "all", "what of a listener: all, listener (and connections to come) or connections (that are open)")
	must(c.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions(
		slices.Sorted(maps.Keys(scopes)), cobra.ShellCompDirectiveNoFileComp)))
	try.register(c)
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		if try.ends() {
			return a.endTry(ctx, &try)
		}
		after, err := try.after()
		if err != nil {
			return err
		}
		where, ok := scopes[scope]
		if !ok {
			return usagef("--scope %q: want all, listener or connections", scope)
		}
		options, err := parseOptions("option", args[1:])
		if err != nil {
			return err
		}
		resp, err := a.tune(ctx, args[0], &pb.SetOptionsRequest{Options: options, Scope: where, RevertAfter: after})
		if err != nil {
			return err
		}
		if err := a.printResults(resp); err != nil {
			return err
		}
		return tuned(args[0], resp.GetResults())
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
func (a *app) tune(ctx context.Context, id string, request *pb.SetOptionsRequest) (*pb.SetOptionsResponse, error) {
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
	set := func(target string) (*pb.SetOptionsResponse, error) {
		request.Target = target
		return api.tuning.SetOptions(ctx, request)
	}
	resp, err := set(target)
	if a.missing(err) && target != id && isCookie(id) {
		if resp, err = set(connectionName(id)); a.missing(err) {
			err = failf(codes.NotFound, "no listener or connection is called %s", id).try("sockctl ls; sockctl conn ls")
		}
	}
	return resp, err
}

func (a *app) printResults(resp *pb.SetOptionsResponse) error {
	results := resp.GetResults()
	v := view{tree: func() any { return append(list("results", results), tryTree(resp)...) }}
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
	a.tellTry(resp)
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
