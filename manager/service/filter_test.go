package service_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

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
		if l.GetName() == "web" {
			l.Spec.Options = map[string]*structpb.Value{
				"idle_timeout": structpb.NewStringValue("30s"), "backlog": structpb.NewNumberValue(64), "tcp.no_delay": structpb.NewBoolValue(true),
			}
		}
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
		`name = "web"`:                              "web",
		"name = web OR name = listeners/old":        "old web",
		`name != "web"`:                             "api old",
		`name = "w*"`:                               "web",
		`name = "eb"`:                               "",
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
		// Lists of messages, maps, and what is there at all.
		"status.bound.port > 0":                "api web",
		"status.bound.ip = \"127.0.0.1\"":      "api web",
		"status.bound.ip : \"127.*\"":          "api web",
		"status.bound.ip = \"127.0.0.2\"":      "",
		"status.bound:*":                       "api web",
		"NOT status.bound:*":                   "old",
		"labels:tier":                          "api web",
		"labels:colour":                        "",
		"labels:*":                             "api web",
		"labels.tier:*":                        "api web",
		"labels.colour:*":                      "",
		"status.active_connections:*":          "web",
		"spec.options:idle_timeout":            "web",
		"spec.options.idle_timeout = \"30s\"":  "web",
		"spec.options.idle_timeout < \"1m\"":   "web",
		"spec.options.idle_timeout > \"1m\"":   "",
		"spec.options.backlog >= 64":           "web",
		"spec.options.backlog > 64":            "",
		"spec.options.tcp.no_delay = true":     "web",
		"spec.options.\"tcp.no_delay\" = true": "web",
		"spec.handler.echo:*":                  "api old web",
		"spec.handler.http:*":                  "",
		"status.retry_time:*":                  "",
	} {
		pages, total := d.pages(0, filter)
		got := strings.ReplaceAll(strings.Join(slices.Concat(pages...), " "), "listeners/", "")
		if got != want || int(total) != len(strings.Fields(want)) {
			t.Errorf("%s: got %q, %d in all; want %q", filter, got, total, want)
		}
	}
	for _, bad := range []string{
		"colour = red", "status.sate = running", "status.state = walking", "status.state", "running", "= 5", "status = running",
		"labels = x", "status.bound.port = five", "status.bound = 5", "status.bound.port.x = 5", "spec.options = 5", "create_time.seconds = 5", "generation = many", "create_time > yesterday", "name = ", "name = (", "(name = x",
		"name = x AND", "name = x OR OR name = y", "foo(name)", "name.x = 5", "status.state.x = 5", "name ~ x", `name = "`,
		"\x00", strings.Repeat("(", 1000), strings.Repeat("name = x AND ", 2000) + "name = x",
	} {
		_, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{Filter: bad})
		t.Run(fmt.Sprintf("%.20q", bad), func(t *testing.T) { wantError(t, err, codes.InvalidArgument, "FILTER_INVALID") })
	}
}

// A field that is not there is answered with the one that was probably meant.
func TestFilterNearest(t *testing.T) {
	d := serve(t)
	for filter, want := range map[string]string{
		"status.sate = running":      "did you mean status.state?",
		"sate.x = running":           "Listener has no field sate",
		"lables.tier = edge":         "did you mean labels?",
		"state = running":            "did you mean status.state?",
		"bound.port = 80":            "did you mean status.bound?",
		"status.bound.prot = 80":     "did you mean status.bound.port?",
		"generation > 5 xyzzy < 10s": "put a value such as",
		`status.bound.port > "abc"`:  `filter: status.bound.port: "abc" is not a number`,
		`create_time > "yesterday"`:  `"yesterday" is not a time: write`,
		`generation = NaN`:           "is not a number",
	} {
		_, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{Filter: filter})
		wantError(t, err, codes.InvalidArgument, "FILTER_INVALID")
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v", filter, err)
		}
	}
	_, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{Filter: `rtt > "1ms"`})
	if !strings.Contains(fmt.Sprint(err), "did you mean tcp_info.rtt?") {
		t.Error(err)
	}
}
