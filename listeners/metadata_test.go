package listeners_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// What clouds hand out to whoever asks from the host is not for everybody.
func TestMetadataAddresses(t *testing.T) {
	closed, open := listeners.NewSet(listeners.SetConfig{}), listeners.NewSet(listeners.SetConfig{Metadata: true})
	for uri, refused := range map[string]bool{
		"tcp://169.254.169.254:80": true, "udp://169.254.169.254:1": true, "tcp://[::ffff:169.254.169.254]:80": true, "tcp://[fd00:ec2::254]:80": true,
		"tcp://[64:ff9b::a9fe:a9fe]:80": true, "tcp://[64:ff9b:1:a9fe:a9:fe00::]:80": true, "tcp://[64:ff9b:1::a9fe:a9fe]:80": true, "tcp://[64:ff9b:1:1::a00:1]:80": false,
		"tcp://168.63.129.16:80": true, "tcp://192.0.0.192:80": true, "tcp://[fe80::a9fe:a9fe%25lo]:80": true, "tcp://169.254.169.253:80": false, "tcp://127.0.0.1:80": false, "unix:///x": false,
	} {
		a, err := listeners.ParseAddress(uri)
		if err != nil {
			t.Fatal(err)
		}
		if err := closed.MayConnect(a); errors.Is(err, unix.EACCES) != refused {
			t.Errorf("%s: %v", uri, err)
		}
		if err := open.MayConnect(a); err != nil {
			t.Errorf("%s, allowed: %v", uri, err)
		}
	}
}
