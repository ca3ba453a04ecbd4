package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) startCommand() *cobra.Command {
	var f startFlags
	c := &cobra.Command{
		Use:   "start NAME [-- PROGRAM [ARG]...]",
		Short: "Make a listener when it is missing, and run it",
		Long: "start makes the listener that --listen and --handler describe and runs it. One that is there already is\n" +
			"started; if it runs, nothing happens. What is given must then be as it is: start changes no definition.",
		Example: "  sockctl start web --listen tcp://127.0.0.1:8080 --handler http --body 'Hello, World'\n" +
			"  sockctl start front --listen tcp://:80 --handler forward --upstream tcp://10.0.0.1:8080 --upstream tcp://10.0.0.2:8080,weight=2\n" +
			"  sockctl start echo --listen udp://:7 --listen tcp://:7 --handler echo --option backlog=1024\n" +
			"  sockctl start safe --listen tcp://:443 --handler http --tls-cert chain.pem --tls-key key.pem\n" +
			"  sockctl start upper --listen tcp://127.0.0.1:2000 --handler exec -- /usr/bin/tr a-z A-Z\n" +
			"  sockctl start web",
		Args:              oneAndCommand,
		ValidArgsFunction: a.completeListeners,
	}
	f.changed = c.Flags().Changed
	flags := c.Flags()
	flags.StringArrayVarP(&f.listen, "listen", "l", nil, "address as tcp://HOST:PORT, udp://..., unix:///PATH, ...; repeatable")
	flags.StringVar(&f.handler, "handler", "", "what to do with what arrives: echo, discard, reply, http, forward, exec, handoff, remote, daytime, time or chargen")
	flags.StringArrayVar(&f.options, "option", nil, "option as name=value, see 'sockctl options'; repeatable")
	flags.StringArrayVar(&f.labels, "label", nil, "label as name=value; repeatable")
	flags.StringVar(&f.data, "data", "", "reply: the text to send")
	flags.BoolVar(&f.keepOpen, "keep-open", false, "reply: keep the connection open after it")
	flags.Uint32Var(&f.status, "status", 0, "http: status code (default 200)")
	flags.StringArrayVar(&f.headers, "header", nil, "http: response header as 'name: value'; repeatable")
	flags.StringVar(&f.body, "body", "", "http: response body")
	flags.StringVar(&f.bodyFile, "body-file", "", "http: file with the response body, - for standard input")
	flags.StringArrayVar(&f.upstreams, "upstream", nil, "forward: where to relay to, as tcp://HOST:PORT[,weight=N][,drain][,name=SERVER]; name: connections whose TLS asks for that server (SNI); repeatable")
	flags.StringVar(&f.balance, "balance", "", "forward: how to choose: round-robin (the default), least-connections, source-hash or first")
	flags.DurationVar(&f.connectTimeout, "connect-timeout", 0, "forward: time to connect before the next upstream is tried (default 5s)")
	flags.DurationVar(&f.healthInterval, "health-interval", 0, "forward: connect to every upstream this often, and leave out those that fail (default: never)")
	flags.StringVar(&f.path, "path", "", "handoff: Unix socket of the process that takes connections over")
	flags.Uint32Var(&f.sendProxy, "send-proxy", 0, "forward: tell upstreams who the client is, by the PROXY protocol of version 1 or 2")
	flags.StringVar(&f.proxyMode, "proxy-protocol", "", "connections and datagrams begin with a header of the PROXY protocol: off, optional or required")
	must(c.RegisterFlagCompletionFunc("proxy-protocol", cobra.FixedCompletions([]string{"off", "optional", "required"}, cobra.ShellCompDirectiveNoFileComp)))
	f.tls.add(c)
	flags.StringArrayVar(&f.exec.env, "env", nil, "exec: variable of the program as name=value; repeatable")
	flags.StringVar(&f.exec.dir, "dir", "", "exec: working directory (default /)")
	flags.StringVar(&f.exec.user, "user", "", "exec: user, by name or number, to run as (default the daemon's)")
	flags.BoolVar(&f.exec.passListener, "pass-listener", false, "exec: one program gets the listening sockets (LISTEN_FDS) and accepts itself")
	flags.DurationVar(&f.exec.killTimeout, "kill-timeout", 0, "exec: `TIME` from SIGTERM to SIGKILL (default 5s)")
	flags.StringVar(&f.concurrency, "concurrency", "", "how connections are served: loop, thread or process (default what the handler needs)")
	c.MarkFlagsMutuallyExclusive("body", "body-file")
	must(c.RegisterFlagCompletionFunc("balance", cobra.FixedCompletions(
		[]string{"round-robin", "least-connections", "source-hash", "first"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("handler", cobra.FixedCompletions(handlerKinds, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("concurrency", cobra.FixedCompletions([]string{"loop", "thread", "process"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("option", a.completeOptionFlag))
	for _, name := range []string{"listen", "upstream", "label", "data", "status", "header", "body", "env", "user", "kill-timeout"} {
		must(c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		f.command = args[1:]
		d, err := a.definition(ctx, listenerID(args[0]), &f)
		if err != nil {
			return err
		}
		return a.start(ctx, d)
	})
	return c
}

// oneAndCommand takes a name, and a command after --.
func oneAndCommand(c *cobra.Command, args []string) error {
	at := c.ArgsLenAtDash()
	if at < 0 {
		return cobra.ExactArgs(1)(c, args)
	}
	return cobra.ExactArgs(1)(c, args[:at])
}

// start makes the listener, or starts the one that is there if it is the same.
func (a *app) start(ctx context.Context, d *definition) error {
	api, err := a.dial()
	if err != nil {
		return err
	}
	spec := d.listener.GetSpec()
	if len(spec.GetListen()) > 0 && spec.GetHandler() != nil {
		made, err := api.listeners.CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: d.id, Listener: d.listener})
		if err == nil {
			for _, issue := range made.GetIssues() {
				a.note("%s", issueText(issue))
			}
			return a.started(made.GetListener())
		}
		if f := a.explain(err); f.code != codes.AlreadyExists {
			return elsewhere(d, f)
		}
	}
	if len(d.mask) > 0 {
		if err := a.sameDefinition(ctx, api, d); err != nil {
			return a.howToMake(d, err)
		}
	}
	resp, err := api.listeners.StartListener(ctx, &pb.StartListenerRequest{Name: d.listener.GetName()})
	if err != nil {
		return a.howToMake(d, err)
	}
	return a.started(resp.GetListener())
}

// elsewhere adds, to an error that says that a port is taken, how to take the
// next one.
func elsewhere(d *definition, f *failure) *failure {
	uri := f.metadata["address"]
	colon := strings.LastIndexByte(uri, ':')
	if f.reason != "ADDRESS_IN_USE" || colon < 0 {
		return f
	}
	port, err := strconv.ParseUint(uri[colon+1:], 10, 16)
	if err != nil || port == 65535 {
		return f // a path
	}
	return f.try(fmt.Sprintf("sockctl start %s --listen %s:%d", d.id, uri[:colon], port+1))
}

// howToMake adds, to an error that says there is no such listener, what is
// missing to make it.
func (a *app) howToMake(d *definition, err error) error {
	f := a.explain(err)
	if f.code != codes.NotFound {
		return f
	}
	if len(d.listener.GetSpec().GetListen()) > 0 {
		return usagef("%s is not there, and --handler is required to make it: want %s", d.id, strings.Join(handlerKinds, ", "))
	}
	return f.try("sockctl start " + d.id + " --listen tcp://127.0.0.1:8080 --handler echo")
}

// sameDefinition fails when the listener that is there is not what d says.
// The daemon compares: it knows that 30s and 30000ms are the same, and says
// so by not counting up the generation.
func (a *app) sameDefinition(ctx context.Context, api *client, d *definition) error {
	present, err := api.listener(ctx, d.id, pb.ListenerView_LISTENER_VIEW_BASIC)
	if err != nil {
		return err
	}
	resp, err := api.listeners.UpdateListener(ctx, &pb.UpdateListenerRequest{
		Listener:     d.listener,
		UpdateMask:   &fieldmaskpb.FieldMask{Paths: d.mask},
		AllowRebind:  true,
		ValidateOnly: true,
	})
	if err != nil {
		f := a.explain(err)
		if f.reason == "ADDRESS_IN_USE" || f.reason == "ADDRESS_NOT_AVAILABLE" { // they are other ones, which cannot even be had
			return otherDefinition(d, []string{"spec.listen"})
		}
		return f
	}
	asked := resp.GetListener()
	differs := differences(d.mask, present, asked)
	if present.GetGeneration() != asked.GetGeneration() && len(differs) == 0 {
		differs = d.mask
	}
	if present.GetGeneration() == asked.GetGeneration() {
		// The generation does not count labels; all else it says is the same.
		differs = slices.DeleteFunc(differs, func(path string) bool { return !strings.HasPrefix(path, "labels.") })
	}
	if len(differs) == 0 {
		return nil
	}
	return otherDefinition(d, differs)
}

func otherDefinition(d *definition, differs []string) error {
	f := failf(codes.AlreadyExists, "%s exists with another definition (differs in %s)", d.id, strings.Join(differs, ", "))
	f.reason = "LISTENER_ALREADY_EXISTS"
	fix := "sockctl rm " + d.id + ", then start it again"
	if !slices.ContainsFunc(differs, func(path string) bool { return !strings.HasPrefix(path, "spec.options.") }) {
		fix = "sockctl tune " + d.id + " " + optionWords(differs, d.listener.GetSpec())
	}
	return f.try(fix)
}

// differences returns which of the paths are not the same in two listeners.
func differences(mask []string, x, y *pb.Listener) []string {
	var paths []string
	for _, path := range mask {
		same := true
		switch {
		case strings.HasPrefix(path, "labels."):
			name := strings.TrimPrefix(path, "labels.")
			was, ok := x.GetLabels()[name]
			same = ok && was == y.GetLabels()[name]
		case strings.HasPrefix(path, "spec.options."):
			name := strings.TrimPrefix(path, "spec.options.")
			same = proto.Equal(x.GetSpec().GetOptions()[name], y.GetSpec().GetOptions()[name])
		case path == "spec.listen":
			same = slices.Equal(x.GetSpec().GetListen(), y.GetSpec().GetListen())
		case path == "spec.concurrency":
			same = x.GetSpec().GetConcurrency() == y.GetSpec().GetConcurrency()
		case path == "spec.tls":
			same = proto.Equal(x.GetSpec().GetTls(), y.GetSpec().GetTls())
		case path == "spec.handler":
			same = proto.Equal(x.GetSpec().GetHandler(), y.GetSpec().GetHandler())
		}
		if !same {
			paths = append(paths, path)
		}
	}
	return paths
}

// optionWords returns the options at paths as tune takes them.
func optionWords(paths []string, spec *pb.ListenerSpec) string {
	words := make([]string, 0, len(paths))
	for _, path := range paths {
		name := strings.TrimPrefix(path, "spec.options.")
		words = append(words, name+"="+valueText(spec.GetOptions()[name]))
	}
	return strings.Join(words, " ")
}

// started prints a listener that should run now.
func (a *app) started(l *pb.Listener) error {
	id, status := listenerID(l.GetName()), l.GetStatus()
	if status.GetState() == pb.ListenerStatus_STATE_FAILED {
		return failf(codes.FailedPrecondition, "%s is kept but cannot run: %s", id, status.GetMessage())
	}
	return a.print(view{
		tree:  func() any { return tree(l) },
		names: []string{id},
		text: func(w *bytes.Buffer, _ bool) {
			words := append([]string{id, word(status.GetState())}, uris(status.GetBound())...)
			w.WriteString(clean(strings.Join(words, " ")) + "\n")
		},
	})
}

func issueText(i *pb.Issue) string {
	if i.GetField() == "" {
		return i.GetMessage()
	}
	return i.GetField() + ": " + i.GetMessage()
}

func uris(addresses []*pb.SocketAddress) []string {
	var all []string
	for _, addr := range addresses {
		all = append(all, addr.GetUri())
	}
	return all
}
