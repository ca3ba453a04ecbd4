package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// lsWatch prints what is there, then every change, a line each.
func (a *app) lsWatch(ctx context.Context, names []string, filter string) error {
	api, err := a.dial()
	if err != nil {
		return err
	}
	detail := pb.ListenerView_LISTENER_VIEW_BASIC
	if a.structured() || a.output == "wide" {
		detail = pb.ListenerView_LISTENER_VIEW_FULL
	}
	stream, err := api.listeners.WatchListeners(ctx, &pb.WatchListenersRequest{SendInitial: true, Filter: filter, View: detail})
	if err != nil {
		return err
	}
	ids := unique(names)
	head := true
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return failf(codes.Unavailable, "the daemon at %s ended the watch", api.addr)
		}
		if err != nil {
			return err
		}
		id := listenerID(r.GetListener().GetName())
		if r.GetListener() == nil || len(ids) > 0 && !slices.Contains(ids, id) {
			continue
		}
		if err := a.printChange(r, id, head); err != nil {
			return err
		}
		head = false
	}
}

// watchWidths keep the columns of lines that are printed one by one apart.
var watchWidths = [...]int{0: 20, 1: 9, 2: 28, 3: 8, 4: 6, 5: 9, 6: 9, 7: 9}

func (a *app) printChange(r *pb.WatchListenersResponse, id string, head bool) error {
	v := view{tree: func() any { return tree(r) }, names: []string{id}}
	v.text = func(w *bytes.Buffer, wide bool) {
		if head {
			writeLine(w, watchWidths[:], listenerHead(wide))
		}
		cells := a.listenerRow(r.GetListener(), wide)
		if r.GetType() == pb.WatchListenersResponse_TYPE_DELETED {
			cells[1] = "deleted"
		}
		writeLine(w, watchWidths[:], cells)
	}
	return a.printLine(v)
}

// writeLine writes cells of a line by itself, as wide as their columns.
func writeLine(w *bytes.Buffer, widths []int, cells []string) {
	for i, cell := range cells {
		if cell = clean(cell); cell == "" {
			cell = none
		}
		if i < len(widths) && i < len(cells)-1 {
			cell = fmt.Sprintf("%-*s", widths[i], cell)
		}
		cells[i] = cell
	}
	w.WriteString(strings.Join(cells, "  ") + "\n")
}
