package service_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// pages walks through a list and returns what is on each page.
func (d *daemon) pages(size int32, filter string) (pages [][]string, total int32) {
	d.t.Helper()
	for token := ""; ; {
		resp, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{PageSize: size, PageToken: token, Filter: filter})
		if err != nil {
			d.t.Fatal(err)
		}
		var names []string
		for _, l := range resp.GetListeners() {
			names = append(names, l.GetName())
		}
		pages, total = append(pages, names), resp.GetTotalSize()
		if token = resp.GetNextPageToken(); token == "" {
			return pages, total
		}
	}
}

func TestPages(t *testing.T) {
	d := serve(t)
	const n = 250
	var want, odd []string
	for i := range n {
		l := &pb.Listener{Name: fmt.Sprintf("listeners/l%03d", i), Labels: map[string]string{"odd": fmt.Sprint(i%2 == 1)}, Spec: echoSpec()}
		l.Spec.DesiredState = pb.ListenerSpec_DESIRED_STATE_STOPPED
		if _, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: l.GetName(), Listener: l}); err != nil {
			t.Fatal(err)
		}
		want = append(want, l.GetName())
		if i%2 == 1 {
			odd = append(odd, l.GetName())
		}
	}
	for _, c := range []struct {
		size   int32
		filter string
		pages  int
		want   []string
	}{
		{0, "", 3, want},    // the default is 100
		{100, "", 3, want},  // and 100 is 100
		{50, "", 5, want},   // the last page is full, and known to be the last
		{7, "", 36, want},   // the last page is not full
		{1, "", 250, want},  // one each
		{1000, "", 1, want}, // all
		{1 << 30, "", 1, want},
		{10, "labels.odd = true", 13, odd},
		{0, "labels.odd = true", 2, odd},
		{10, "labels.odd = maybe", 1, nil},
	} {
		pages, total := d.pages(c.size, c.filter)
		got := slices.Concat(pages...)
		if !slices.Equal(got, c.want) || len(pages) != c.pages || int(total) != len(c.want) {
			t.Errorf("size %d, filter %q: %d pages of %d, %d in all", c.size, c.filter, len(pages), len(got), total)
		}
	}

	// Listeners come and go between two pages: the rest is as it is then.
	page, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{PageSize: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"l009", "l010"} { // the last of this page, the first of the next
		if _, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: gone, DrainTimeout: durationpb.New(0)}); err != nil {
			t.Fatal(err)
		}
	}
	next, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{PageSize: 10, PageToken: page.GetNextPageToken()})
	if err != nil || next.GetListeners()[0].GetName() != "listeners/l011" || next.GetTotalSize() != n-2 {
		t.Errorf("%v, %v", next, err)
	}

	// A token is good for the query that it came from, and for no other.
	token := page.GetNextPageToken()
	for _, r := range []*pb.ListListenersRequest{
		{PageToken: token, Filter: "labels.odd = true"},
		{PageToken: token + "AAAA"},
		{PageToken: "AAAA"},
		{PageToken: "\x00"},
		{PageToken: token[1:]},
	} {
		_, err := d.listeners.ListListeners(d.ctx, r)
		wantError(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	}
	_, err = d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{PageToken: token})
	wantError(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	_, err = d.events.ListEvents(d.ctx, &pb.ListEventsRequest{PageToken: token})
	wantError(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}

func TestConnectionPages(t *testing.T) {
	d := serve(t)
	web := d.create("web").GetStatus().GetBound()[0]
	api := d.create("api").GetStatus().GetBound()[0]
	for i := range 30 {
		ping(t, web)
		if i%3 == 0 {
			ping(t, api)
		}
	}
	for _, c := range []struct {
		size   int32
		filter string
		want   int
	}{
		{0, "", 40},
		{7, "", 40},
		{1000, "", 40},
		{4, `listener = "listeners/api"`, 10},
		{3, `listener = "listeners/web" AND local.port = ` + portText(web), 30},
		{3, `listener = "listeners/web" AND local.port = ` + portText(api), 0},
	} {
		seen := map[string]bool{}
		for token := ""; ; {
			resp, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{PageSize: c.size, PageToken: token, Filter: c.filter})
			if err != nil {
				t.Fatal(err)
			}
			if c.size > 0 && len(resp.GetConnections()) > int(c.size) {
				t.Errorf("%d on a page of %d", len(resp.GetConnections()), c.size)
			}
			for _, conn := range resp.GetConnections() {
				seen[conn.GetName()] = true
			}
			if token = resp.GetNextPageToken(); token == "" {
				break
			}
		}
		if len(seen) != c.want {
			t.Errorf("size %d, filter %q: %d, want %d", c.size, c.filter, len(seen), c.want)
		}
	}
}
