package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// connWatch prints what is open, then every connection that opens or closes, a
// line each.
func (a *app) connWatch(ctx context.Context, api *client, filter string, interval time.Duration) error {
	req := &pb.WatchConnectionsRequest{SendInitial: true, Filter: filter}
	if interval != 0 {
		req.UpdateInterval = durationpb.New(interval)
	}
	stream, err := api.connections.WatchConnections(ctx, req)
	if err != nil {
		return err
	}
	for head := true; ; {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return failf(codes.Unavailable, "the daemon at %s ended the watch", api.addr)
		}
		if err != nil {
			return err
		}
		if n := r.GetDropped(); n > 0 {
			a.note("%s left out: more than can be shown this fast", plural(n, "event"))
		}
		if r.GetConnection() == nil {
			continue // all that was open has been shown
		}
		if err := a.printConnChange(r, head); err != nil {
			return err
		}
		head = false
	}
}

// connWidths keep the columns of lines that are printed one by one apart.
var connWidths = [...]int{0: 6, 1: 12, 2: 25, 3: 25, 4: 11, 5: 4, 6: 4, 7: 9, 8: 9}

func (a *app) printConnChange(r *pb.WatchConnectionsResponse, head bool) error {
	c := r.GetConnection()
	v := view{tree: func() any { return tree(r) }, names: []string{connectionID(c.GetName())}}
	v.text = func(w *bytes.Buffer, wide bool) {
		if head {
			writeLine(w, connWidths[:], append(connHead(wide), "REASON"))
		}
		writeLine(w, connWidths[:], append(a.connRow(c, wide), c.GetCloseReason()))
	}
	return a.printLine(v)
}
