package daemon

import (
	"slices"
	"testing"

	"github.com/sockmgr/sockmgr/manager/access"
)

// The example of a configuration is one.
func TestExampleConfig(t *testing.T) {
	var c config
	if err := c.readFile("../../../deploy/sockmgr.yaml"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Control, []string{"unix:///run/sockmgr/control.sock"}) || c.State != "/var/lib/sockmgr" || len(c.Access) != 0 {
		t.Errorf("%+v", c)
	}
	if _, err := access.NewRules(0, c.Access); err != nil {
		t.Error(err)
	}
}
