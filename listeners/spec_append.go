package listeners

import "encoding/json"

// AppendJSON appends what MarshalJSON returns: a store of many listeners writes them
// all at once, and reflection would take most of that time.
func (s Spec) AppendJSON(b []byte) (_ []byte, err error) {
	b = append(b, '{')
	if s.Concurrency != AnyConcurrency {
		value, err := json.Marshal(s.Concurrency)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, `"concurrency":`...), value...), ',')
	}
	b = append(b, `"listen":[`...)
	for i, a := range s.Listen {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendText(b, a.String())
	}
	b = append(b, `],"handler":`...)
	if b, err = appendHandler(b, s.Handler); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name  string
		there bool
		value func() any // few have it
	}{
		{"options", len(s.Options) > 0, func() any { return s.Options }},
		{"pause_mode", s.PauseMode != NotPaused, func() any { return s.PauseMode }},
		{"drain", s.Drain != DrainPolicy{}, func() any { return s.Drain }},
		{"access", !s.Access.IsZero(), func() any { return s.Access }},
		{"proxy_protocol", !s.Proxy.IsZero(), func() any { return s.Proxy }},
		{"tls", s.TLS != nil, func() any { return s.TLS }},
	} {
		if !part.there {
			continue
		}
		value, err := json.Marshal(part.value())
		if err != nil {
			return nil, err
		}
		b = append(append(append(append(b, `,"`...), part.name...), `":`...), value...)
	}
	return append(b, '}'), nil
}

func appendHandler(b []byte, h HandlerSpec) ([]byte, error) {
	config, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	b = AppendText(append(b, `{"kind":`...), h.Kind())
	return append(append(append(b, `,"config":`...), config...), '}'), nil
}

// AppendText appends a string in JSON.
func AppendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, _ := json.Marshal(s) // a string always can be
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
