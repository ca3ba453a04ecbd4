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
