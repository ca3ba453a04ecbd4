package service_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// The client is told the id of its call, refused or not: its own, or one that no
// other call has.
func TestRequestIDIsTold(t *testing.T) {
	d := serve(t)
	d.create("web")
	seen := map[string]bool{}
	call := func(name, id string) string {
		var header metadata.MD
		_, _ = d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: name, RequestId: id}, grpc.Header(&header))
		got := header.Get("sockmgr-request-id")
		if len(got) != 1 || seen[got[0]] {
			t.Errorf("%s: %q", name, got)
			return ""
		}
		seen[got[0]] = true
		return got[0]
	}
	call("web", "")
	call("nobody", "")
	const own = "00000000-0000-4000-8000-000000000001"
	if got := call("web", own); got != own {
		t.Errorf("%q, not the client's", got)
	}
}
