package manager

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// FuzzRecord: whatever is in the store is refused, or is a record that is saved
// as what it was read as.
func FuzzRecord(f *testing.F) {
	spec, err := listeners.ParseSpec(
		[]string{"tcp://127.0.0.1:80", "unix:///run/x.sock"}, &listeners.HTTP{Status: 201, Headers: map[string]string{"X-A": "b"}, Body: []byte("x")},
		map[string]listeners.Value{"backlog": listeners.IntValue(7), "idle_timeout": listeners.DurationValue(90 * time.Second), "unix.mode": listeners.StringValue("0600")})
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []Record{
		{Name: "web", UID: newUID(), Spec: spec, Generation: 1, Revision: 5, Created: time.Now(), Updated: time.Now()},
		{Name: "web", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}, Spec: spec, Desired: WantStopped, Generation: 3},
	} {
		text, err := json.Marshal(&r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("web", text)
	}
	f.Add("web", []byte(`{"name":"web","generation":1,"spec":{"listen":["udp://:7"],"handler":{"kind":"echo","config":{}},"options":{"traffic_class":8}}}`))
	f.Add("web", []byte(`{"name":"web","uid":"<\u2028&\"","owner":"ä","generation":2,"revision":-7,"desired":"paused","resume_at":"2026-11-23T08:00:00.5+01:00",`+
		`"created":"2026-11-23T08:00:00Z","updated":"2026-11-23T08:00:00.123456789Z","spec":{"concurrency":"thread","listen":["tcp://[fe80::1%25lo]:7","tcp4://:0"],`+
		`"handler":{"kind":"echo","config":{}},"options":{"idle_timeout":"1.5s","tcp.no_delay":false,"raw.1.2.int":"0x01"},"pause_mode":"stall",`+
		`"drain":{"timeout":0,"lame_duck":5,"reset_remaining":true},"access":{"allow":["10.0.0.0/8"],"deny":["::/0"],"reset":true,"allow_uids":[]},`+
		`"proxy_protocol":{"mode":"require","trusted":["10.0.0.0/8"],"timeout":9},"tls":{"certificates":[{"certificate":"/a","key":"/b"}],"alpn":["h2"]}}}`))
	f.Add("web", []byte(`{"name":"web","generation":1,"spec":{"listen":["tcp://:7"],"handler":{"kind":"forward","config":{"upstreams":[{"address":"tcp://<a>:1"}]}}}}`))
	f.Add("", []byte(`null`))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		r, err := decodeRecord([]byte(name), text)
		if err != nil {
			return
		}
		saved, err := json.Marshal(&r)
		if err != nil {
			t.Fatalf("%+v cannot be saved: %v", r, err)
		}
		if written, err := r.appendJSON(nil); err != nil || string(written) != string(saved) {
			t.Fatalf("the store writes\n%s\nand not\n%s; %v", written, saved, err)
		}
		again, err := decodeRecord([]byte(name), saved)
		if err != nil {
			t.Fatalf("%s is refused: %v", saved, err)
		}
		twice, err := json.Marshal(&again)
		if err != nil || string(twice) != string(saved) {
			t.Errorf("%s\n%s\n%v", saved, twice, err)
		}
		var draft Record
		if _, err := draft.apply(r.draft(), r.Created); err != nil {
			t.Errorf("%s is no draft: %v", saved, err)
		} else if !draft.Spec.Equal(r.Spec) {
			t.Errorf("%s is another spec as a draft", saved)
		}
	})
}
