package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// connLsFlags are the flags of conn ls.
type connLsFlags struct {
	filter, sort string
	limit        uint32
	watch        bool
	interval     time.Duration
}

// connOrders are the words of --sort, each with what it puts first.
var connOrders = []struct{ word, order, help string }{
	{"rtt", "tcp_info.rtt desc", "the slowest round trip"},
	{"retransmits", "tcp_info.total_retransmits desc", "the most that was sent again"},
	{"queue", "queue.send_bytes desc, queue.user_send_bytes desc", "the most that waits for the client to take it"},
	{"sent", "sent_bytes desc", "the most bytes out"},
	{"received", "received_bytes desc", "the most bytes in"},
	{"idle", "last_active_time", "the longest without a byte"},
	{"age", "create_time", "the oldest"},
}

func (a *app) connLsCommand() *cobra.Command {
	var f connLsFlags
	var words, long []string
	for _, o := range connOrders {
		words = append(words, o.word)
		long = append(long, fmt.Sprintf("  %-12s %s", o.word, o.help))
	}
	c := &cobra.Command{
		Use:   "ls [LISTENER...]",
		Short: "List open connections",
		Long: "ls lists open connections. --sort puts first, with\n" + strings.Join(long, "\n") +
			"\nor takes fields of a connection, as AIP-132 has it: 'tcp_info.min_rtt desc, name'. Several are\n" +
			"separated by commas; asc behind a word turns its order round: 'retransmits, rtt asc'.",
		Example: "  sockctl conn ls web\n" +
			"  sockctl conn ls --sort rtt --limit 10\n" +
			"  sockctl conn ls -w --filter 'remote.ip = \"10.0.0.7\"'",
		ValidArgsFunction: a.completeListeners,
	}
	c.Flags().StringVar(&f.filter, "filter", "", "only those that match, as AIP-160 has it: remote.ip = \"10.0.0.7\"")
	c.Flags().StringVar(&f.sort, "sort", "", "order by `WORD` or fields: "+orList(words))
	c.Flags().Uint32Var(&f.limit, "limit", 0, "show the first `N` only")
	c.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on with those that open and close, a line each, until interrupted")
	c.Flags().DurationVar(&f.interval, "interval", 0, "with -w: also those that change, each at most once in this `TIME`")
	c.MarkFlagsMutuallyExclusive("watch", "sort")
	c.MarkFlagsMutuallyExclusive("watch", "limit")
	must(c.RegisterFlagCompletionFunc("filter", cobra.NoFileCompletions))
	must(c.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	must(c.RegisterFlagCompletionFunc("interval", cobra.NoFileCompletions))
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		if c.Flags().Changed("interval") && !f.watch {
			return usagef("--interval is how often -w shows changes").try("sockctl conn ls -w --interval 1s")
		}
		api, err := a.dial()
		if err != nil {
			return err
		}
		ids := unique(args)
		if err := api.mustExist(ctx, ids); err != nil {
			return err
		}
		filter := and(f.filter, ofListeners(ids))
		if f.watch {
			return a.connWatch(ctx, api, filter, f.interval)
		}
		return a.connLs(ctx, api, filter, &f)
	})
	return c
}

// connOrder puts the fields of a connection in place of the words of --sort. A
// word has its order, which desc does not change and asc turns round; of a field
// they mean what AIP-132 says.
func connOrder(text string) string {
	terms := strings.Split(text, ",")
	for i, term := range terms {
		words := strings.Fields(term)
		if len(words) == 0 || len(words) > 2 || len(words) == 2 && words[1] != "asc" && words[1] != "desc" {
			continue // the daemon says what is wrong
		}
		for _, o := range connOrders {
			if o.word != words[0] {
				continue
			}
			if terms[i] = o.order; len(words) == 2 && words[1] == "asc" {
				terms[i] = turned(o.order)
			}
		}
	}
	return strings.Join(terms, ",")
}

// turned is the opposite order.
func turned(order string) string {
	fields := strings.Split(order, ",")
	for i, field := range fields {
		up, down := strings.CutSuffix(field, " desc")
		if fields[i] = up; !down {
			fields[i] = field + " desc"
		}
	}
	return strings.Join(fields, ",")
}

func (a *app) connLs(ctx context.Context, api *client, filter string, f *connLsFlags) error {
	detail := pb.ConnectionView_CONNECTION_VIEW_BASIC // the kernel is not asked about each of a million
	if a.structured() {
		detail = pb.ConnectionView_CONNECTION_VIEW_FULL
	}
	all, err := api.someConnections(ctx, &pb.ListConnectionsRequest{Filter: filter, OrderBy: connOrder(f.sort), View: detail}, int(f.limit))
	if err != nil {
		return err
	}
	return a.printConnections(all)
}

// mustExist fails when one of the listeners is not there: a filter alone
// would find nothing and call it success.
func (c *client) mustExist(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if _, err := c.listener(ctx, id, pb.ListenerView_LISTENER_VIEW_BASIC); err != nil {
			return err
		}
	}
	return nil
}

// ofListeners is the filter for their connections.
func ofListeners(ids []string) string {
	var parts []string
	for _, id := range ids {
		parts = append(parts, "listener = "+quote(listenerName(id)))
	}
	return strings.Join(parts, " OR ")
}

// and joins two filters, either of which may be empty.
func and(x, y string) string {
	if x == "" || y == "" {
		return x + y
	}
	return "(" + x + ") AND (" + y + ")"
}

// printConnections prints a table with TCP facts and queues if the order or the
// filter is by them: then they are there.
func (a *app) printConnections(all []*pb.Connection) error {
	v := view{tree: func() any { return list("connections", all) }}
	for _, c := range all {
		v.names = append(v.names, connectionID(c.GetName()))
	}
	v.text = func(w *bytes.Buffer, wide bool) {
		tcp := slices.ContainsFunc(all, func(c *pb.Connection) bool { return c.GetTcpInfo() != nil })
		queue := slices.ContainsFunc(all, func(c *pb.Connection) bool { return c.GetQueue() != nil })
		head := connHead(wide)
		if tcp {
			head = append(head, "RTT", "RETRANSMITS")
		}
		if queue {
			head = append(head, "TO SEND")
		}
		t := newTable(head...)
		for _, c := range all {
			cells := a.connRow(c, wide)
			if info := c.GetTcpInfo(); info != nil {
				cells = append(cells, timeText(info.GetRtt().AsDuration()), fmt.Sprint(info.GetTotalRetransmits()))
			} else if tcp {
				cells = append(cells, none, none)
			}
			if queue {
				cells = append(cells, size(c.GetQueue().GetSendBytes()+c.GetQueue().GetUserSendBytes()))
			}
			t.row(cells...)
		}
		t.write(w)
	}
	return a.print(v)
}

func connHead(wide bool) []string {
	head := []string{"ID", "LISTENER", "REMOTE", "LOCAL", "STATE", "AGE", "IDLE", "IN", "OUT"}
	if wide {
		head = append(head, "FD", "READS", "WRITES", "WAITS FOR", "PEER", "PROGRAM", "FAULTS")
	}
	return head
}

func (a *app) connRow(c *pb.Connection, wide bool) []string {
	cells := []string{
		connectionID(c.GetName()), listenerID(c.GetListener()), c.GetRemote().GetUri(), c.GetLocal().GetUri(),
		word(c.GetState()), a.age(c.GetCreateTime()), a.age(c.GetLastActiveTime()),
		size(c.GetReceivedBytes()), size(c.GetSentBytes()),
	}
	if !wide {
		return cells
	}
	peer := c.GetPeer().GetCommand()
	if pid := c.GetPeer().GetPid(); pid != 0 {
		peer = strings.TrimSpace(fmt.Sprintf("%s (pid %d)", peer, pid))
	}
	program := ""
	if pid := c.GetProgramPid(); pid != 0 {
		program = fmt.Sprintf("pid %d", pid)
	}
	return append(cells, fmt.Sprint(c.GetFd()), fmt.Sprint(c.GetReceivedMessages()),
		fmt.Sprint(c.GetSentMessages()), strings.Join(c.GetWaitsFor(), ","), peer, program, strings.Join(c.GetFaults(), ","))
}
