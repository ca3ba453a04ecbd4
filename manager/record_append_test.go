package manager

import (
	"reflect"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// What the store writes is put together by hand: who adds a field adds it there,
// and here. FuzzRecord compares the two.
func TestRecordFields(t *testing.T) {
	for what, most := range map[reflect.Type]int{reflect.TypeFor[Record](): 13, reflect.TypeFor[listeners.Spec](): 9} {
		if n := what.NumField(); n != most {
			t.Errorf("%v has %d fields: appendJSON writes those of %d", what, n, most)
		}
	}
}
