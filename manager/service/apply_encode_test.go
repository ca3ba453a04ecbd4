package service

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// An answer that is encoded while it is made is, to who receives it, the one that
// would be made of messages, whatever became of each; and so is what the audit has.
func TestApplyEncoded(t *testing.T) {
	applied := variousApplied(t, encodedFrom+100)
	for _, from := range []int{0, 3, 5, 6, 90} { // what comes first takes the room in the audit
		some := applied[from:]
		ctx := noted(t.Context())
		resp := &pb.ApplyListenersResponse{Revision: 12}
		if err := encodeChanges(ctx, resp, some); err != nil {
			t.Fatal(err)
		}
		wire, err := proto.Marshal(resp)
		if err != nil {
			t.Fatal(err)
		}
		got, want := &pb.ApplyListenersResponse{}, &pb.ApplyListenersResponse{Revision: 12}
		if err := proto.Unmarshal(wire, got); err != nil {
			t.Fatal(err)
		}
		for _, a := range some {
			want.Changes = append(want.Changes, changeToPB(a, new(fieldWords), new(changeMessage)))
		}
		if !proto.Equal(got, want) {
			for i, c := range want.GetChanges() {
				if !proto.Equal(got.GetChanges()[i], c) {
					t.Fatalf("from %d, change %d:\n%v\nnot\n%v", from, i, got.GetChanges()[i], c)
				}
			}
			t.Errorf("%d changes, revision %d", len(got.GetChanges()), got.GetRevision())
		}
		var note callNote
		note.addAnswer(want)
		if a, b := noteOf(ctx).all(), note.all(); !slices.Equal(a, b) || len(a) != auditChanges+1 {
			t.Errorf("from %d, the audit has\n%q\nnot\n%q", from, a, b)
		}
	}
}

// variousApplied are results of all kinds.
func variousApplied(t *testing.T, count int) (all []*manager.Applied) {
	t.Helper()
	record := func(i, generation int) *manager.Record {
		options := map[string]listeners.Value{}
		if i%3 == 0 {
			options["backlog"], options["tcp.no_delay"] = listeners.IntValue(int64(generation)), listeners.BoolValue(false)
		}
		var handler listeners.HandlerSpec = &listeners.Echo{}
		if i%7 == 1 {
			handler = &listeners.Reply{Payload: []byte(fmt.Sprint("r", i, generation))}
		}
		spec, err := listeners.ParseSpec([]string{fmt.Sprintf("tcp://127.0.0.1:%d", 1000+i), "tcp://[::1]:0"}[:1+i%2], handler, options)
		if err != nil {
			t.Fatal(err)
		}
		r := &manager.Record{Name: fmt.Sprint("l", i), UID: fmt.Sprint("u", i), Owner: "o", Spec: spec, Generation: int64(generation), Revision: int64(i), Created: time.Unix(int64(i), 5)}
		if i%4 == 0 {
			r.Labels, r.Annotations = map[string]string{"a": "b", "c": fmt.Sprint(generation)}, map[string]string{"ä": "<&>"}
		}
		if i%5 == 2 {
			r.Desired = manager.WantPaused
		}
		return r
	}
	for i := range count {
		after := record(i, 2)
		info := &manager.Info{Record: after, Started: time.Unix(7, 0), State: manager.Running, Message: fmt.Sprint(i), Live: listeners.Status{
			Bound: after.Spec.Listen, Queue: listeners.Queue{Accept: 1, AcceptLimit: 4096},
		}}
		a := &manager.Applied{Name: after.Name, Info: info}
		switch i % 6 {
		case 0, 1:
			a.Action = manager.Created
		case 2:
			a.Action, a.Before, a.Notes = manager.Updated, record(i+3, 1), []manager.Note{{Code: "CLAMPED", Field: "f", Message: "m"}}
		case 3:
			a.Action, a.Before = manager.Unchanged, after
		case 4:
			a.Action, a.Info, a.Err = manager.NotApplied, nil, errors.Join(&listeners.Fault{Reason: listeners.AddressInUse, Message: "x", Fix: "y"})
		case 5:
			a.Action, a.Before = manager.Removed, record(i, 1)
			switch i % 4 {
			case 1:
				a.Info = nil
			case 3:
				a.Info = &manager.Info{}
			}
		}
		all = append(all, a)
	}
	return all
}
