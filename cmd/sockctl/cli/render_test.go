package cli

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func full() *pb.Listener {
	options, err := structpb.NewStruct(map[string]any{
		"backlog": 1024, "idle_timeout": "30s", "tcp.no_delay": true, "none": nil, "half": 0.5, "list": []any{1, "a"},
	})
	if err != nil {
		panic(err)
	}
	return &pb.Listener{
		Name:   "listeners/web",
		Labels: map[string]string{"tier": "edge", "a": "true"},
		Spec: &pb.ListenerSpec{
			Listen: []string{"tcp://127.0.0.1:8080"},
			Handler: &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{
				Headers: map[string]string{"x-y": "<&>"}, Body: []byte("Hello"),
			}}},
			Options: options.GetFields(),
		},
		Status: &pb.ListenerStatus{
			State:         pb.ListenerStatus_STATE_RUNNING,
			Message:       "line\nline \"q\"",
			AcceptedTotal: math.MaxUint64,
			StartTime:     timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 500e6, time.UTC)),
		},
		Generation: math.MaxInt64,
	}
}

const fullJSON = `
{
  "name": "listeners/web",
  "uid": "",
  "labels": {
    "a": "true",
    "tier": "edge"
  },
  "annotations": {},
  "spec": {
    "listen": [
      "tcp://127.0.0.1:8080"
    ],
    "handler": {
      "http": {
        "headers": {
          "x-y": "<&>"
        },
        "body": "SGVsbG8="
      }
    },
    "options": {
      "backlog": 1024,
      "half": 0.5,
      "idle_timeout": "30s",
      "list": [
        1,
        "a"
      ],
      "none": null,
      "tcp.no_delay": true
    }
  },
  "status": {
    "state": "running",
    "message": "line\nline \"q\"",
    "bound": [],
    "sockets": [],
    "activeConnections": 0,
    "acceptedTotal": 18446744073709551615,
    "rejectedTotal": 0,
    "acceptQueue": 0,
    "acceptQueueLimit": 0,
    "dropsTotal": 0,
    "startTime": "2026-01-02T03:04:05.500Z",
    "receivedBytes": 0,
    "sentBytes": 0,
    "upstreams": [],
    "faults": []
  },
  "manager": "",
  "generation": 9223372036854775807,
  "revision": 0,
  "etag": ""
}`

const fullYAML = `
name: listeners/web
uid: ""
labels:
  a: "true"
  tier: edge
annotations: {}
spec:
  listen:
    - tcp://127.0.0.1:8080
  handler:
    http:
      headers:
        x-y: <&>
      body: SGVsbG8=
  options:
    backlog: 1024
    half: 0.5
    idle_timeout: 30s
    list:
      - 1
      - a
    none: null
    tcp.no_delay: true
status:
  state: running
  message: |-
    line
    line "q"
  bound: []
  sockets: []
  activeConnections: 0
  acceptedTotal: 18446744073709551615
  rejectedTotal: 0
  acceptQueue: 0
  acceptQueueLimit: 0
  dropsTotal: 0
  startTime: "2026-01-02T03:04:05.500Z"
  receivedBytes: 0
  sentBytes: 0
  upstreams: []
  faults: []
manager: ""
generation: 9223372036854775807
revision: 0
etag: ""
`

func TestTreeAsJSON(t *testing.T) {
	var b bytes.Buffer
	writeJSON(&b, tree(full()), "  ")
	same(t, "JSON", b.String(), fullJSON)
	if !json.Valid(b.Bytes()) {
		t.Error("not JSON")
	}
}

func TestTreeAsYAML(t *testing.T) {
	var b bytes.Buffer
	if err := writeYAML(&b, tree(full())); err != nil {
		t.Fatal(err)
	}
	same(t, "YAML", b.String(), fullYAML)
	var back map[string]any
	if err := yaml.Unmarshal(b.Bytes(), &back); err != nil {
		t.Error(err)
	}
}

func compact(v any) string {
	var b bytes.Buffer
	writeJSON(&b, v, "")
	return b.String()
}

func TestTree(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    proto.Message
		want string
	}{
		{"set message without fields", &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, `{"echo":{}}`},
		{
			"zero scalars of a connection",
			&pb.QueueInfo{},
			`{"acceptQueue":0,"acceptQueueLimit":0,"acceptQueuePeak":0,"receiveBytes":0,"sendBytes":0,"unsentBytes":0,"userReceiveBytes":0,"userSendBytes":0,"drops":0}`,
		},
		{
			"optional number at zero, enums in a list, null default",
			&pb.OptionSpec{
				Name: "x", Min: new(int64(0)), Networks: []pb.Network{pb.Network_NETWORK_TCP, pb.Network_NETWORK_UNIXPACKET},
				Type: pb.OptionSpec_TYPE_BYTES_COUNT, Effect: pb.OptionSpec_EFFECT_NEW_CONNECTIONS, DefaultValue: structpb.NewNullValue(),
			},
			`{"name":"x","kernelName":"","level":0,"option":0,"type":"bytes_count","networks":["tcp","unixpacket"],` +
				`"effect":"new_connections","inherited":false,"capability":"","clampedBy":"","clampValue":0,"min":0,"choices":[],` +
				`"summary":"","supported":false,"defaultValue":null}`,
		},
		{
			"enum values in a map",
			&pb.GetLogLevelsResponse{Levels: map[string]pb.LogLevel{"b": pb.LogLevel_LOG_LEVEL_OFF, "a": pb.LogLevel_LOG_LEVEL_WARN}},
			`{"levels":{"a":"warn","b":"off"}}`,
		},
		{
			"duration and field mask",
			&pb.UpdateListenerRequest{UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"spec.listen", "update_mask"}}},
			`{"updateMask":"spec.listen,updateMask","allowMissing":false,"allowRebind":false,"validateOnly":false,"requestId":""}`,
		},
		{
			"unset optional message stays out",
			&pb.StopListenerRequest{Name: "x"},
			`{"name":"x","etag":"","requestId":""}`,
		},
		{
			"duration",
			&pb.StopListenerRequest{DrainTimeout: durationpb.New(1500 * time.Millisecond)},
			`{"name":"","etag":"","drainTimeout":"1.500s","requestId":""}`,
		},
		{
			"duration that JSON cannot say",
			&pb.ShutdownDaemonRequest{DrainTimeout: &durationpb.Duration{Seconds: 1, Nanos: -1}},
			`{"drainTimeout":"` + (&durationpb.Duration{Seconds: 1, Nanos: -1}).String() + `","instanceId":""}`,
		},
		{
			"enum value of a newer daemon",
			&pb.SetLogLevelRequest{Level: 99},
			`{"logger":"","level":"99"}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) { same(t, "JSON", compact(tree(tt.m)), tt.want) })
	}
}

func TestList(t *testing.T) {
	same(t, "empty list", compact(list[*pb.Listener]("listeners", nil)), `{"listeners":[]}`)
	same(t, "list", compact(list("issues", []*pb.Issue{{Code: "A"}, {Field: "b"}})),
		`{"issues":[{"code":"A","field":"","message":""},{"code":"","field":"b","message":""}]}`)
}

func TestEnumWord(t *testing.T) {
	for want, e := range map[string]protoreflect.Enum{
		"half_closed":      pb.Connection_STATE_HALF_CLOSED,
		"running":          pb.ListenerSpec_DESIRED_STATE_RUNNING,
		"needs_rebind":     pb.OptionResult_OUTCOME_NEEDS_REBIND,
		"fin_wait1":        pb.TcpState_TCP_STATE_FIN_WAIT1,
		"open_connections": pb.TuningScope_TUNING_SCOPE_OPEN_CONNECTIONS,
		"unspecified":      pb.ListenerStatus_STATE_UNSPECIFIED,
	} {
		same(t, "word", word(e), want)
	}
}

func TestYAMLStringsStayStrings(t *testing.T) {
	for _, s := range []string{"", "true", "yes", "no", "null", "~", "12", "0x1f", "1e3", "2026-01-02", "- a", "a: b", "#x", " lead", "é\u2028"} {
		var b bytes.Buffer
		if err := writeYAML(&b, object{{"k", s}}); err != nil {
			t.Fatal(err)
		}
		var back map[string]any
		if err := yaml.Unmarshal(b.Bytes(), &back); err != nil || back["k"] != s {
			t.Errorf("%q is %q, reads as %v (%v)", s, b.String(), back["k"], err)
		}
	}
}

func TestPlainNumbers(t *testing.T) {
	for v, want := range map[float64]string{
		4194304: "4194304", -1: "-1", 0.25: "0.25", 1e21: "1e+21", math.Inf(1): `"+Inf"`, 9007199254740992: "9007199254740992",
	} {
		same(t, "number", compact(plain(v)), want)
	}
	same(t, "NaN", compact(plain(math.NaN())), `"NaN"`)
}
