package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// eventsFlags are those of the events verb.
type eventsFlags struct {
	follow bool
	since  time.Duration
	tail   int
	filter string
}

func (a *app) eventsCommand() *cobra.Command {
	var f eventsFlags
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happened, and who caused it",
		Example: "  sockctl events --since 10m\n" +
			"  sockctl events -f --filter 'severity >= warning'",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on with what happens from now on, until interrupted")
	c.Flags().DurationVar(&f.since, "since", 0, "only what happened in this time up to now")
	c.Flags().IntVar(&f.tail, "tail", -1, "only this many of the last (default 50 with neither --since nor --tail)")
	c.Flags().StringVar(&f.filter, "filter", "", `only those that match, as AIP-160 has it: resource = "listeners/web" (default severity >= info, which leaves out the calls that an event tells of already)`)
	c.RunE = a.run(func(ctx context.Context, _ []string) error { return a.events(ctx, f) })
	return c
}

func (a *app) events(ctx context.Context, f eventsFlags) error {
	if f.since < 0 {
		return usagef("--since cannot be negative")
	}
	if f.tail < 0 && f.since == 0 {
		f.tail = 50
	}
	if f.filter == "" {
		f.filter = "severity >= info"
	}
	api, err := a.dial()
	if err != nil {
		return err
	}
	past, resume, err := a.pastEvents(ctx, api, f)
	if err != nil {
		return err
	}
	if !f.follow {
		return a.printEvents(past)
	}
	for _, e := range past {
		if err := a.printEvent(e); err != nil {
			return err
		}
	}
	stream, err := api.events.WatchEvents(ctx, &pb.WatchEventsRequest{Filter: f.filter, ResumeToken: resume})
	for err == nil {
		var r *pb.WatchEventsResponse
		if r, err = stream.Recv(); err == nil {
			err = a.printEvent(r.GetEvent())
		}
	}
	if errors.Is(err, io.EOF) {
		return failf(codes.Unavailable, "the daemon at %s ended the watch", api.addr)
	}
	return err
}

// pastEvents returns what was asked for, oldest first, and where to go on.
func (a *app) pastEvents(ctx context.Context, api *client, f eventsFlags) (past []*pb.Event, resume string, err error) {
	from := a.env.Now().Add(-f.since)
	enough := func() bool {
		if n := len(past); f.tail >= 0 && n >= f.tail {
			past = past[:f.tail]
			return true
		}
		cut := slices.IndexFunc(past, func(e *pb.Event) bool { return f.since > 0 && e.GetTime().AsTime().Before(from) })
		if cut >= 0 {
			past = past[:cut]
		}
		return cut >= 0
	}
	for token := ""; ; {
		page, err := api.events.ListEvents(ctx, &pb.ListEventsRequest{PageSize: pageSize, PageToken: token, Filter: f.filter})
		if err != nil {
			return nil, "", err
		}
		if resume == "" {
			resume = page.GetResumeToken() // of the first page: what comes later is watched
		}
		past = append(past, page.GetEvents()...)
		if token = page.GetNextPageToken(); enough() || token == "" {
			slices.Reverse(past)
			return past, resume, nil
		}
	}
}

func eventRow(e *pb.Event) []string {
	return []string{
		e.GetTime().AsTime().Local().Format("2006-01-02T15:04:05.000Z07:00"), word(e.GetSeverity()), e.GetType(), e.GetActor(), e.GetMessage(),
	}
}

func (a *app) printEvents(events []*pb.Event) error {
	v := view{tree: func() any { return list("events", events) }}
	for _, e := range events {
		v.names = append(v.names, e.GetResource())
	}
	v.text = func(w *bytes.Buffer, _ bool) {
		t := newTable("TIME", "SEVERITY", "TYPE", "ACTOR", "MESSAGE")
		for _, e := range events {
			t.row(eventRow(e)...)
		}
		t.write(w)
	}
	return a.print(v)
}

// printEvent prints one of a stream: a line each, also as JSON.
func (a *app) printEvent(e *pb.Event) error {
	v := view{tree: func() any { return tree(e) }, names: []string{e.GetResource()}}
	v.text = func(w *bytes.Buffer, _ bool) {
		line := newTable(eventRow(e)...)
		line.write(w)
	}
	return a.printLine(v)
}
