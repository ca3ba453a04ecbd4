package listeners

// tell adds what is known of the upstream's side.
func (r *relay) tell(st *ConnStatus) {
	if r.server != "" {
		st.TLS = &TLSInfo{ServerName: r.server}
	}
	switch {
	case !r.isOpen:
		st.State = ConnConnecting
	case r.there.eof || r.back.eof:
		st.State = ConnHalfClosed
	}
	if r.isOpen {
		st.Upstream = r.peer()
	}
}

// peer is the upstream's address.
func (r *relay) peer() Address {
	if r.fd < 0 {
		return r.upstream
	}
	s := &socket{fd: int(r.fd), addr: Address{Network: r.up.network().Base()}}
	return s.peer()
}

func (r *relay) held() (receive, send uint64) { return r.there.held(), r.back.held() }
