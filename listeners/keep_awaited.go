package listeners

import "golang.org/x/sys/unix"

// Awaited are the listeners of sockets that nobody has claimed and that clients,
// or datagrams, wait at.
func (k *Kept) Awaited() map[string]bool {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var names []string
	var all []unix.PollFd
	for name, some := range k.back {
		for _, r := range some {
			names, all = append(names, name), append(all, unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN})
		}
	}
	if n, err := unix.Poll(all, 0); n <= 0 || err != nil { // of no consequence but the order
		return nil
	}
	awaited := map[string]bool{}
	for i, p := range all {
		if p.Revents&unix.POLLIN != 0 {
			awaited[names[i]] = true
		}
	}
	return awaited
}
