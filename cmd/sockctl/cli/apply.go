package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// maxRequest is the most that the daemon reads of one request.
const maxRequest = 1 << 20

// applyFlags are the flags of apply as they were written; diff has some.
type applyFlags struct {
	file                                      []string
	prune, dryRun, atomic, rebind, force, yes bool
}

func (f *applyFlags) register(c *cobra.Command) {
	c.Args, c.ValidArgsFunction = cobra.NoArgs, cobra.NoFileCompletions
	c.Flags().StringArrayVarP(&f.file, "file", "f", nil, "manifest, directory of manifests, or - for standard input")
	must(c.MarkFlagRequired("file"))
	must(c.MarkFlagFilename("file", "yaml", "yml", "json"))
}

func (a *app) applyCommand() *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Make listeners be as manifests say",
		Long: "apply makes, changes and, with --prune, removes listeners until they are as the manifests say. What a manifest\n" +
			"does not name stays as it is. Each listener notes what -f it was applied from: only that may change it by\n" +
			"apply, unless --force is given, and only that prunes it. Manifests are what export prints; of a directory\n" +
			"*.yaml, *.yml and *.json are read. When one of them has a fault, nothing is sent.",
		Example: "  sockctl apply -f web.yaml\n" +
			"  sockctl apply -f listeners/ --prune --dry-run\n" +
			"  sockctl export web | sed s/8080/8081/ | sockctl apply -f - --rebind --force",
	}
	f.register(c)
	flags := c.Flags()
	flags.BoolVar(&f.prune, "prune", false, "remove those that were applied from the same -f and are not in it any more")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be done; change nothing")
	flags.BoolVar(&f.atomic, "atomic", false, "change nothing when one of them fails")
	flags.BoolVar(&f.rebind, "rebind", false, "let addresses change while a listener runs; those that stay keep their sockets")
	flags.BoolVar(&f.force, "force", false, "take over listeners that were applied from elsewhere")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	c.RunE = a.run(func(ctx context.Context, _ []string) error { return a.apply(ctx, &f) })
	return c
}

func (a *app) apply(ctx context.Context, f *applyFlags) error {
	ask := f.prune && !f.yes && !f.dryRun
	if ask && (!a.env.IsTerminal || f.file[0] == "-") {
		return usagef("--prune without a terminal to ask at needs -y").try("sockctl apply --prune --dry-run shows what goes")
	}
	ms, api, err := a.wanted(ctx, f)
	if err != nil {
		return err
	}
	req := &pb.ApplyListenersRequest{
		Listeners: ms.listeners(), Manager: ms.owner, Prune: f.prune, Force: f.force,
		AllowRebind: f.rebind, Atomic: f.atomic, ValidateOnly: f.dryRun,
	}
	if ask {
		if err := a.confirmPrune(ctx, api, ms, req); err != nil {
			return err
		}
	}
	changes, sent := a.send(ctx, api, ms, req)
	if sent != nil && len(changes) == 0 {
		if f.atomic && asFailure(sent).reason != "" {
			return a.locateAtomic(ctx, api, ms, req, sent)
		}
		return sent
	}
	if err := a.printChanges(changes, f.dryRun); err != nil {
		return err
	}
	b := &batch{a: a}
	a.reportChanges(b, ms, changes)
	if sent != nil {
		return sent
	}
	return b.failure()
}

// wanted reads what -f names and returns the daemon that shall have it.
func (a *app) wanted(ctx context.Context, f *applyFlags) (*manifests, *client, error) {
	if len(f.file) != 1 {
		return nil, nil, usagef("-f can be given once: what it names owns the listeners").try("-f DIR for several files")
	}
	ms, err := a.manifests(ctx, f.file[0])
	if err != nil {
		return nil, nil, err
	}
	api, err := a.dial()
	return ms, api, err
}

// send applies the set, in parts when it is too large for one request. With an
// error come the changes of the parts before it; the error is a failure.
func (a *app) send(ctx context.Context, api *client, ms *manifests, req *pb.ApplyListenersRequest) ([]*pb.ListenerChange, error) {
	parts, err := ms.split(req)
	if err != nil {
		return nil, err
	}
	var changes []*pb.ListenerChange
	done := 0
	for _, part := range parts {
		resp, err := api.listeners.ApplyListeners(ctx, part)
		if err != nil {
			f := a.explain(err)
			if done > 0 {
				f.message = fmt.Sprintf("%d of %d listeners were not reached: %s", len(ms.all)-done, len(ms.all), f.message)
				if !req.GetValidateOnly() {
					f.exit = exitPartDone
				}
			}
			return changes, f
		}
		changes = append(changes, resp.GetChanges()...)
		done += len(part.GetListeners())
	}
	return changes, nil
}

// split makes requests of one that the daemon will read. A whole that must be
// seen at once cannot be split.
func (ms *manifests) split(req *pb.ApplyListenersRequest) ([]*pb.ApplyListenersRequest, error) {
	all := req.GetListeners()
	empty := proto.CloneOf(req)
	empty.Listeners = nil
	room := maxRequest - proto.Size(empty)
	part := proto.CloneOf(empty)
	parts := []*pb.ApplyListenersRequest{part}
	used := 0
	for i, l := range all {
		n := 1 + protowire.SizeBytes(proto.Size(l)) // 1 is the tag
		if n > room {
			m := ms.all[i]
			return nil, failf(codes.ResourceExhausted, "%s: %s takes %d bytes; the daemon reads at most %s of one request, body and payload included",
				m.place("name"), l.GetName(), n, size(maxRequest))
		}
		if used += n; used > room {
			part, used = proto.CloneOf(empty), n
			parts = append(parts, part)
		}
		part.Listeners = append(part.Listeners, l)
	}
	for flag, given := range map[string]bool{"--atomic": req.GetAtomic(), "--prune": req.GetPrune()} {
		if given && len(parts) > 1 {
			return nil, failf(codes.ResourceExhausted, "-f %s: %s take %s; the daemon reads at most %s of one request, and with %s they must be in one",
				ms.arg, plural(uint64(len(all)), "listener"), size(uint64(proto.Size(req))), size(maxRequest), flag).
				try("without " + flag + ", or split them over several -f")
		}
	}
	return parts, nil
}

// locateAtomic finds out, by a dry run, which listeners are why an atomic
// change was refused: the refusal names the first at best.
func (a *app) locateAtomic(ctx context.Context, api *client, ms *manifests, req *pb.ApplyListenersRequest, refusal error) error {
	try := proto.CloneOf(req)
	try.Atomic, try.ValidateOnly = false, true
	changes, err := a.send(ctx, api, ms, try)
	if err != nil {
		return refusal
	}
	b := &batch{a: a}
	for _, c := range changes {
		if c.GetError() != nil {
			b.fail(listenerID(c.GetName()), ms.failureOf(c))
		}
	}
	if len(b.fails) > 0 {
		refusal = b.failure()
	} else {
		f := a.explain(refusal) // it shows only when it is done
		refusal = ms.locate(f, f.metadata["listener"], f.metadata["field"])
	}
	a.note("nothing is changed: --atomic")
	return refusal
}

// confirmPrune asks before listeners go.
func (a *app) confirmPrune(ctx context.Context, api *client, ms *manifests, req *pb.ApplyListenersRequest) error {
	try := proto.CloneOf(req)
	try.Atomic, try.ValidateOnly = false, true
	changes, err := a.send(ctx, api, ms, try)
	if err != nil {
		return err
	}
	var names []string
	for _, c := range changes {
		if c.GetAction() == pb.ListenerChange_ACTION_DELETED {
			names = append(names, listenerID(c.GetName()))
		}
	}
	if len(names) == 0 {
		return nil
	}
	a.tell("--prune removes " + plural(uint64(len(names)), "listener") + ":\n")
	for _, name := range names {
		a.tell("  " + clean(name) + "\n")
	}
	return a.ask(ctx, "Go on?", "nothing is changed")
}
