package service_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func TestFilters(t *testing.T) {
	d := serve(t)
	for _, l := range []*pb.Listener{
		{Name: "web", Labels: map[string]string{"tier": "edge", "app.kubernetes.io": "x", "n": "10"}},
		{Name: "api", Labels: map[string]string{"tier": "core"}},
		{Name: "old", Annotations: map[string]string{"why": "a \"quoted\" word"}},
	} {
		l.Spec = echoSpec()
		if _, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: l.GetName(), Listener: l}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "old", DrainTimeout: durationpb.New(0)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return d.get("old").GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED })
	ping(t, d.get("web").GetStatus().GetBound()[0])

	for filter, want := range map[string]string{
		"":                                          "api old web",
		"  ":                                        "api old web",
		`name = "listeners/web"`:                    "web",
		`name = "listeners/*"`:                      "api old web",
		`name = "*b"`:                               "web",
		`name != "listeners/web"`:                   "api old",
		"status.state = running":                    "api web",
		"status.state = RUNNING":                    "api web",
		"status.state = STATE_RUNNING":              "api web",
		"status.state != running":                   "old",
		"spec.desired_state = stopped":              "old",
		"spec.desiredState = stopped":               "old", // JSON names too
		"labels.tier = edge":                        "web",
		`labels.tier = "edge"`:                      "web",
		"labels.tier : edge":                        "web",
		"labels.tier != edge":                       "api", // one without the label has no tier to differ
		"NOT labels.tier = edge":                    "api old",
		"-labels.tier = edge":                       "api old",
		"labels.app.kubernetes.io = x":              "web",
		"labels.n = 10":                             "web",
		"labels.tier = edge OR labels.tier = core":  "api web",
		"labels.tier = edge AND labels.tier = core": "",
		"status.state = running labels.tier = core": "api",
		"(labels.tier = edge OR status.state = stopped) AND generation > 1": "old",
		"generation > 1":                               "old",
		"generation >= 1":                              "api old web",
		"generation < 2":                               "api web",
		"generation <= 1.5":                            "api web",
		"status.active_connections = 1":                "web",
		"status.activeConnections > 0":                 "web",
		"status.received_bytes >= 4":                   "web",
		"spec.listen = \"tcp://127.0.0.1:0\"":          "api old web",
		"spec.listen = \"tcp*\"":                       "api old web",
		"spec.listen : \"udp*\"":                       "",
		"create_time > \"2020-01-01T00:00:00Z\"":       "api old web",
		"create_time < \"2020-01-01T00:00:00Z\"":       "",
		"status.retry_time > \"2020-01-01T00:00:00Z\"": "", // unset
		`annotations.why = "a \"quoted\" word"`:        "old",
		"labels.tier = \"\"":                           "",
	} {
		pages, total := d.pages(0, filter)
		got := strings.ReplaceAll(strings.Join(slices.Concat(pages...), " "), "listeners/", "")
		if got != want || int(total) != len(strings.Fields(want)) {
			t.Errorf("%s: got %q, %d in all; want %q", filter, got, total, want)
		}
	}
	for _, bad := range []string{
		"colour = red", "status.sate = running", "status.state = walking", "status.state", "running", "= 5", "status = running",
		"labels = x", "status.bound.port = 5", "generation = many", "create_time > yesterday", "name = ", "name = (", "(name = x",
		"name = x AND", "name = x OR OR name = y", "foo(name)", "name.x = 5", "status.state.x = 5", "name ~ x", `name = "`,
		"\x00", strings.Repeat("(", 1000), strings.Repeat("name = x AND ", 2000) + "name = x",
	} {
		_, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{Filter: bad})
		t.Run(fmt.Sprintf("%.20q", bad), func(t *testing.T) { wantError(t, err, codes.InvalidArgument, "FILTER_INVALID") })
	}
}
