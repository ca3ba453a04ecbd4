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

// tuned returns how it went as a whole, by the rule of a batch.
func tuned(id string, results []*pb.OptionResult) error {
	id = connectionID(listenerID(id))
	f := &failure{}
	var names []string
	for _, r := range results {
		switch r.GetOutcome() {
		case pb.OptionResult_OUTCOME_NEEDS_REBIND, pb.OptionResult_OUTCOME_FAILED:
			f.parts = append(f.parts, notSet(r))
		default:
			continue
		}
		if !slices.Contains(names, r.GetName()) {
			names = append(names, r.GetName())
		}
	}
	if len(f.parts) == 0 {
		return nil
	}
	f.alike()
	f.exit, f.message = commonExit(f.parts), id+": not set: "+strings.Join(names, ", ")
	if len(f.parts) < len(results) {
		f.exit, f.message = exitPartDone, id+": part is set, part is not: "+strings.Join(names, ", ")
	}
	if len(names) == 1 {
		f.metadata = maps.Clone(f.parts[0].metadata)
		delete(f.metadata, "target") // there may be several
	}
	if len(f.parts) == 1 {
		f.parts = nil
	}
	return f
}

// notSet is why one option is not as asked.
func notSet(r *pb.OptionResult) *failure {
	c, ok := reasonCodes[r.GetReason()]
	if !ok {
		c = codes.FailedPrecondition
	}
	f := failf(c, "%s: %s", r.GetName(), r.GetMessage()).with("option", r.GetName()).with("target", r.GetTarget())
	f.reason = r.GetReason()
	if r.GetErrno() != "" {
		f = f.with("errno", r.GetErrno())
	}
	return f
}
