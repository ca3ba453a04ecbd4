package access

import (
	"os"
	"os/exec"
	"testing"
)

// A pid that was given to another process is not the process that had it; one that
// nobody has is still the one that had it.
func TestProcessIsNotItsPidAlone(t *testing.T) {
	this := ThisProcess()
	if this.Start == 0 {
		t.Skip("SKIPPED: there is no /proc here")
	}
	before := Process{PID: this.PID, Start: this.Start - 1}
	if !this.Is(os.Getpid()) || !this.Lives() || this.Is(os.Getppid()) || before.Is(os.Getpid()) || before.Lives() {
		t.Errorf("%+v is %v, lives %v; that of before is %v, lives %v", this, this.Is(os.Getpid()), this.Lives(), before.Is(os.Getpid()), before.Lives())
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	ended := Process{PID: cmd.Process.Pid, Start: this.Start}
	if ended.Lives() || !ended.Is(ended.PID) {
		t.Errorf("one that has ended lives: %v, is itself: %v", ended.Lives(), ended.Is(ended.PID))
	}
}
