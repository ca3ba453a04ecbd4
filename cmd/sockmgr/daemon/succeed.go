package daemon

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/sockmgr/sockmgr/internal/fdstore"
	"github.com/sockmgr/sockmgr/internal/succession"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
)

// patience is how long the daemon before may take for one step. It is this
// process that is waited for, so it is long.
const patience = time.Minute

// errNotWanted is that the daemon before goes on by itself: it wanted to know
// whether this program could take its place, or it could not.
var errNotWanted = errors.New("the daemon before goes on")

// A predecessor is the daemon whose place this process is to take.
type predecessor struct {
	conn  *succession.Conn
	begin succession.Message
	own   []fdstore.Returned
	copy  int           // of the store; -1: it is in memory
	told  chan struct{} // closed when the service manager knows this process
	once  sync.Once     // of that
}

// release lets go of what waits for that.
func (p *predecessor) release() { p.once.Do(func() { close(p.told) }) }

// meet says hello to the daemon that has started this process; nil: none has.
func meet() (*predecessor, error) {
	conn, err := succession.Inherited()
	if conn == nil || err != nil {
		return nil, err
	}
	p := &predecessor{conn: conn, copy: -1, told: make(chan struct{})}
	if err := conn.Send(succession.Message{Step: succession.Hello, Protocol: succession.Protocol, Version: Version}, patience); err != nil {
		return nil, err
	}
	var files []int
	if p.begin, files, err = conn.Receive(patience, succession.Begin); err != nil {
		return nil, err
	}
	for i, fd := range files {
		if i < len(p.begin.Names) {
			p.own = append(p.own, fdstore.Returned{Name: p.begin.Names[i], FD: fd})
		} else {
			p.copy = fd
		}
	}
	return p, nil
}

// former are the daemons before: what they connect is the daemon's own.
func (p *predecessor) former() (all []access.Process) {
	if p == nil {
		return nil
	}
	for _, f := range p.begin.Former {
		all = append(all, access.Process(f))
	}
	return all
}

// fail tells what keeps this process from taking over.
func (p *predecessor) fail(err error) {
	if !errors.Is(err, errNotWanted) {
		_ = p.conn.Send(succession.Message{Step: succession.Failed, Error: fmt.Sprintf("%.8000s", err)}, patience) // or it is gone
	}
}

// succeed takes everything over. It returns once the daemon before has let go.
func (p *predecessor) succeed(c manager.Config) (*manager.Manager, error) {
	if want := manager.StoreAt(c.StateDir); want != p.begin.Store {
		return nil, fmt.Errorf("it is to keep its state in %s, and the daemon that runs has it in %s", want, p.begin.Store)
	}
	if p.copy >= 0 {
		if err := manager.CheckState(os.NewFile(uintptr(p.copy), "copy of the store")); err != nil {
			return nil, err
		}
	}
	if err := p.conn.Send(succession.Message{Step: succession.Valid}, patience); err != nil {
		return nil, notWanted(err)
	}
	if _, _, err := p.conn.Receive(patience, succession.Store); err != nil {
		return nil, notWanted(err)
	}
	m, err := manager.Prepare(c, time.Duration(p.begin.Epoch))
	if err != nil {
		return nil, err
	}
	if err := p.conn.Send(succession.Message{Step: succession.Open}, patience); err != nil {
		return nil, notWanted(err)
	}
	_, files, err := p.conn.Receive(patience, succession.Estate)
	if err != nil {
		return nil, notWanted(err)
	}
	if len(files) != 1 {
		return nil, fmt.Errorf("%d descriptors came for what is to be gone on with", len(files))
	}
	return m, p.takeUp(m.Takeover(), os.NewFile(uintptr(files[0]), "estate"))
}

// takeUp takes up part after part, as they come.
func (p *predecessor) takeUp(t *manager.Takeover, from *os.File) error {
	defer func() { _ = from.Close() }()
	var text bytes.Buffer
	decoder, at := gob.NewDecoder(&text), int64(0)
	for {
		size, files, ok, err := p.conn.ReceivePart(patience)
		if err != nil {
			return notWanted(err)
		}
		if !ok {
			break
		}
		text.Reset()
		n, err := text.ReadFrom(io.NewSectionReader(from, at, int64(size)))
		at += n
		var part manager.Estate
		if err == nil {
			err = decoder.Decode(&part)
		}
		if err != nil {
			return fmt.Errorf("what is to be gone on with cannot be read: %w", err)
		}
		if err := t.TakeUp(&part, files); err != nil {
			return err
		}
	}
	if err := t.Finish(); err != nil {
		return err
	}
	if err := p.conn.Send(succession.Message{Step: succession.Taken}, patience); err != nil {
		return notWanted(err)
	}
	if _, _, err := p.conn.Receive(patience, succession.Go); err != nil {
		return notWanted(err)
	}
	return nil
}

// notWanted is what an end of the conversation means: the daemon before has ended
// it, or has ended itself.
func notWanted(err error) error {
	if refusal := succession.Refusal(""); errors.As(err, &refusal) {
		return err
	}
	return fmt.Errorf("%w: %w", errNotWanted, err)
}

// listen waits until the service manager knows this process, or the daemon before
// has ended.
func (p *predecessor) listen(keep *keeper, m *manager.Manager) {
	told, _, err := p.conn.Receive(patience, succession.Told)
	if err != nil {
		keep.notify(fmt.Sprintf("MAINPID=%d", os.Getpid())) // it has not told
	}
	p.release()
	if told.Socket != keep.address() && err == nil { // a supervisor came in the middle of it
		if err := keep.superviseBy(context.Background(), told.Socket, m); err != nil {
			keep.failed(err)
		}
	}
	_ = p.conn.Close()
}
