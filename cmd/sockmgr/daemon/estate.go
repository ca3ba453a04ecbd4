package daemon

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sockmgr/sockmgr/internal/succession"
	"github.com/sockmgr/sockmgr/manager"
)

// An estate is what is left to the heir, on its way: parts one after the other in
// a file in memory, which nobody has to read for it to be written.
type estate struct {
	to    *succession.Conn
	file  *os.File
	text  bytes.Buffer // of one part
	enc   *gob.Encoder
	files int // that have gone over

	commit func() error // fails if it is not to go on
}

// open gives the heir the file.
func (e *estate) open() (err error) {
	if e.file, err = memory("estate"); err != nil {
		return err
	}
	e.enc = gob.NewEncoder(&e.text)
	return e.to.Send(succession.Message{Step: succession.Estate}, takeTime, int(e.file.Fd()))
}

func (e *estate) close() {
	if e.file != nil {
		_ = e.file.Close()
	}
}

// limit is how long the heir may take for all that it has.
func (e *estate) limit() time.Duration { return takeTime + time.Duration(e.files)*takeEach }

// take sends a part.
func (e *estate) take(part *manager.Estate, files []int) error {
	e.text.Reset()
	if err := e.enc.Encode(part); err != nil {
		return err
	}
	if _, err := e.file.Write(e.text.Bytes()); err != nil {
		return err
	}
	e.files += len(files)
	return e.to.SendPart(files, e.text.Len(), e.limit())
}

// finish waits until the heir has taken up all, and has it go on.
func (e *estate) finish() error {
	if err := e.to.Send(succession.Message{Step: succession.Whole}, takeTime); err != nil {
		return err
	}
	if _, _, err := e.to.Receive(e.limit(), succession.Taken); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("it did not take over within %v", e.limit())
		}
		return err
	}
	if err := e.commit(); err != nil {
		return err
	}
	return e.to.Send(succession.Message{Step: succession.Go}, takeTime)
}
