package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) lsCommand() *cobra.Command {
	var filter string
	var watch bool
	c := &cobra.Command{
		Use:   "ls [NAME...]",
		Short: "List listeners",
		Example: "  sockctl ls\n" +
			"  sockctl ls -w web\n" +
			"  sockctl ls --filter 'status.state = failed AND labels.tier = edge'\n" +
			"  sockctl ls -o json | jq -r '.listeners[].status.bound[].uri'",
		ValidArgsFunction: a.completeListeners,
	}
	c.Flags().StringVar(&filter, "filter", "", "only those that match, as AIP-160 has it: labels.tier = edge")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on with what changes, a line each, until interrupted")
	must(c.RegisterFlagCompletionFunc("filter", cobra.NoFileCompletions))
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		if watch {
			return a.lsWatch(ctx, args, filter)
		}
		return a.ls(ctx, args, filter)
	})
	return c
}

func (a *app) ls(ctx context.Context, names []string, filter string) error {
	api, err := a.dial()
	if err != nil {
		return err
	}
	// Sockets are read from the kernel; only who shows them asks for them.
	detail := pb.ListenerView_LISTENER_VIEW_BASIC
	if a.structured() || a.output == "wide" {
		detail = pb.ListenerView_LISTENER_VIEW_FULL
	}
	if len(names) == 0 || filter != "" {
		found, err := api.allListeners(ctx, filter, detail)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			ids := unique(names)
			found = slices.DeleteFunc(found, func(l *pb.Listener) bool {
				return !slices.Contains(ids, listenerID(l.GetName()))
			})
		}
		return a.printListeners(found)
	}
	var found []*pb.Listener
	part := a.each(ctx, unique(names), func(id string) error {
		l, err := api.listener(ctx, id, detail)
		if err == nil {
			found = append(found, l)
		}
		return err
	})
	if part != nil && len(found) == 0 {
		return part
	}
	if err := a.printListeners(found); err != nil {
		return err
	}
	return part
}

func (a *app) printListeners(all []*pb.Listener) error {
	v := view{tree: func() any { return list("listeners", all) }}
	for _, l := range all {
		v.names = append(v.names, listenerID(l.GetName()))
	}
	v.text = func(w *bytes.Buffer, wide bool) {
		t := newTable(listenerHead(wide)...)
		for _, l := range all {
			t.row(a.listenerRow(l, wide)...)
		}
		t.write(w)
	}
	return a.print(v)
}

func listenerHead(wide bool) []string {
	head := []string{"NAME", "STATE", "ADDRESS", "HANDLER", "CONNS", "QUEUE", "IN", "OUT", "AGE"}
	if wide {
		head = append(head, "UID", "LABELS", "FD", "COOKIE", "MESSAGE")
	}
	return head
}

func (a *app) listenerRow(l *pb.Listener, wide bool) []string {
	s := l.GetStatus()
	cells := []string{
		listenerID(l.GetName()), stateCell(s), addressText(l), servesText(l.GetSpec()),
		fmt.Sprint(s.GetActiveConnections()), queueText(s.GetAcceptQueue(), s.GetAcceptQueueLimit()),
		size(s.GetReceivedBytes()), size(s.GetSentBytes()), a.age(l.GetCreateTime()),
	}
	if !wide {
		return cells
	}
	var fds, cookies []string
	for _, socket := range s.GetSockets() {
		fds = append(fds, fmt.Sprint(socket.GetFd()))
		cookies = append(cookies, socketID(socket.GetName()))
	}
	return append(cells, l.GetUid(), pairs(l.GetLabels()), strings.Join(fds, ","), strings.Join(cookies, ","), s.GetMessage())
}

// stateCell is the state, marked where traffic is made bad on purpose.
func stateCell(s *pb.ListenerStatus) string {
	if len(s.GetFaults()) > 0 {
		return word(s.GetState()) + "+faults"
	}
	return word(s.GetState())
}

// servesText is the handler, and what comes before it.
func servesText(s *pb.ListenerSpec) string {
	kind := handlerKind(s.GetHandler())
	if s.GetTls() != nil {
		kind += "+tls"
	}
	return kind
}

// addressText returns what is bound, or what should be when nothing is.
func addressText(l *pb.Listener) string {
	if bound := uris(l.GetStatus().GetBound()); len(bound) > 0 {
		return strings.Join(bound, ",")
	}
	return strings.Join(l.GetSpec().GetListen(), ",")
}

// handlerField returns the kind of a handler that is set, nil for none.
func handlerField(h *pb.Handler) protoreflect.FieldDescriptor {
	m := h.ProtoReflect()
	return m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
}

// handlerKind is the name of the kind, none for one of a newer daemon.
func handlerKind(h *pb.Handler) string {
	if f := handlerField(h); f != nil {
		return string(f.Name())
	}
	return none
}

// queueText is how many wait in the kernel of how many that may; datagram
// sockets have no such queue.
func queueText(waiting, limit uint32) string {
	if limit == 0 {
		return none
	}
	return fmt.Sprintf("%d/%d", waiting, limit)
}
