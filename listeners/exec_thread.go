package listeners

import "runtime"

// A program gets SIGTERM when the thread that forked it ends, not the process
// (prctl(2), PR_SET_PDEATHSIG). Go ends threads, and so would end healthy
// programs. So all are forked by one goroutine that keeps its thread as long as
// there is a program.

// began counts a program. The lock is held.
func (s *starter) began() {
	if s.alive++; s.alive == 1 {
		s.thread = make(chan func())
		go forkOn(s.thread)
	}
}

// ended is told of each that has ended, or could not be started.
func (s *starter) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alive--; s.alive == 0 {
		close(s.thread)
		s.thread = nil
	}
}

// fork runs f on the thread. A program was counted.
func (s *starter) fork(f func()) {
	s.mu.Lock()
	thread := s.thread
	s.mu.Unlock()
	done := make(chan struct{})
	thread <- func() { f(); close(done) }
	<-done
}

func forkOn(jobs <-chan func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for f := range jobs {
		f()
	}
}
