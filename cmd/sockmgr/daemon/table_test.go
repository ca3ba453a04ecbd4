package daemon

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// The kernel's table of descriptors has room for as many as it was made for, so that
// it need not grow while something waits.
func TestDescriptorTable(t *testing.T) {
	const count = 8192
	growTable(count)
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if size, ok := strings.CutPrefix(line, "FDSize:"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(size)); err != nil || n < count {
				t.Errorf("the table has room for %s", line)
			}
			return
		}
	}
	t.Error("/proc/self/status has no FDSize")
}
