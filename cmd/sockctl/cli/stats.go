package cli

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) statsCommand() *cobra.Command {
	var filter string
	var reset bool
	c := &cobra.Command{
		Use:   "stats [NAME...]",
		Short: "Show what listeners, loop and process have done",
		Long: "stats shows counters, rates of the last ten seconds and, with -o wide, json or yaml, how long things took.\n" +
			"JSON and YAML have the event loop, the process and the network namespace too; so has sockctl top.",
		Example: "  sockctl stats\n" +
			"  sockctl stats web -o wide\n" +
			"  sockctl stats -o json | jq '.loop.busyRatio, .network.listenOverflows'\n" +
			"  sockctl stats --reset-peaks",
		ValidArgsFunction: a.completeListeners,
	}
	c.Flags().StringVar(&filter, "filter", "", "only listeners that match, as AIP-160 has it: labels.tier = edge")
	c.Flags().BoolVar(&reset, "reset-peaks", false, "then begin peaks and histograms anew; counters never go back")
	must(c.RegisterFlagCompletionFunc("filter", cobra.NoFileCompletions))
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		ids := unique(args)
		if len(ids) > 0 && filter != "" {
			return usagef("name listeners or give a --filter, not both")
		}
		if len(ids) > 0 {
			filter = namesFilter(ids)
		}
		return a.stats(ctx, ids, filter, reset)
	})
	return c
}

// namesFilter matches those names; a filter of very many would be longer than
// the daemon takes, and then all are asked for.
func namesFilter(ids []string) string {
	if len(ids) > 50 {
		return ""
	}
	parts := make([]string, 0, len(ids))
	for _, id := range ids {
		parts = append(parts, "name = "+quote(listenerName(id)))
	}
	return strings.Join(parts, " OR ")
}

func (a *app) stats(ctx context.Context, ids []string, filter string, reset bool) error {
	api, err := a.dial()
	if err != nil {
		return err
	}
	resp, err := api.stats.GetStats(ctx, &pb.GetStatsRequest{Filter: filter, Histograms: a.structured() || a.output == "wide"})
	if err != nil {
		return err
	}
	s := resp.GetSnapshot()
	found := map[string]bool{}
	for _, l := range s.GetListeners() {
		found[listenerID(l.GetName())] = true
	}
	var part error
	if len(ids) > 0 {
		s.Listeners = slices.DeleteFunc(s.Listeners, func(l *pb.ListenerStats) bool { return !slices.Contains(ids, listenerID(l.GetName())) })
		part = a.each(ctx, ids, func(id string) error {
			if !found[id] {
				return gone(id)
			}
			return nil
		})
	}
	if len(s.GetListeners()) > 0 || part == nil {
		if err := a.printStats(s); err != nil {
			return err
		}
	}
	if reset {
		if _, err := api.stats.ResetPeaks(ctx, &pb.ResetPeaksRequest{Filter: filter}); err != nil {
			return err
		}
	}
	return part
}

func (a *app) printStats(s *pb.Snapshot) error {
	v := view{tree: func() any { return tree(s) }}
	for _, l := range s.GetListeners() {
		v.names = append(v.names, listenerID(l.GetName()))
	}
	v.text = func(w *bytes.Buffer, wide bool) {
		head := []string{"NAME", "ACCEPTED", "ACC/S", "CONNS", "PEAK", "QUEUE", "REJECTED", "DROPS", "IN", "IN/S", "OUT", "OUT/S"}
		if wide {
			head = append(head, "QUEUE-PEAK", "ACCEPT-P99", "FIRST-BYTE-P50", "FIRST-BYTE-P99", "LIFE-P50", "RTT-P50", "CLOSED", "ERRORS")
		}
		t := newTable(head...)
		for _, l := range s.GetListeners() {
			t.row(statsRow(l, wide)...)
		}
		t.write(w)
	}
	return a.print(v)
}

func statsRow(l *pb.ListenerStats, wide bool) []string {
	cells := []string{
		listenerID(l.GetName()), fmt.Sprint(l.GetAccepted()), speed(l.GetAcceptRate().GetPerSecond_10S()),
		fmt.Sprint(l.GetActive()), fmt.Sprint(l.GetActivePeak()), queueText(l.GetAcceptQueue(), l.GetAcceptQueueLimit()),
		fmt.Sprint(sumOf(l.GetRejected())), fmt.Sprint(l.GetDropsTotal()),
		size(l.GetReceivedBytes()), byteSpeed(l.GetReceiveRate().GetPerSecond_10S()),
		size(l.GetSentBytes()), byteSpeed(l.GetSendRate().GetPerSecond_10S()),
	}
	if !wide {
		return cells
	}
	return append(cells, fmt.Sprint(l.GetAcceptQueuePeak()), quantileText(l.GetAcceptDelay(), 0.99),
		quantileText(l.GetFirstByteDelay(), 0.5), quantileText(l.GetFirstByteDelay(), 0.99),
		quantileText(l.GetConnectionDuration(), 0.5), quantileText(l.GetRtt(), 0.5),
		countsText(l.GetClosed()), countsText(l.GetErrors()))
}

func sumOf(counts map[string]uint64) (sum uint64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// countsText is word=count, in the order of the words.
func countsText(counts map[string]uint64) string {
	parts := make([]string, 0, len(counts))
	for _, word := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s=%d", word, counts[word]))
	}
	return strings.Join(parts, ",")
}
