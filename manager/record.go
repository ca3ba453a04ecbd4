package manager

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sockmgr/sockmgr/listeners"
)

// A Record is what is wanted of one listener: what the store keeps.
type Record struct {
	Name        string            `json:"name"`
	UID         string            `json:"uid"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner,omitempty"` // who applied it; empty: nobody did
	Spec        listeners.Spec    `json:"spec"`
	Desired     Desired           `json:"desired,omitempty"`
	ResumeAt    time.Time         `json:"resume_at,omitzero"` // when it ends its pause by itself
	Generation  int64             `json:"generation"`         // grows with every change of what is wanted
	Revision    int64             `json:"revision"`           // of the store, at the last change
	Created     time.Time         `json:"created"`
	Updated     time.Time         `json:"updated"`

	size int // bytes that it takes in the store
}

// Desired is what a listener shall be doing.
type Desired string

// What a listener shall be doing.
const (
	WantRunning Desired = ""
	WantPaused  Desired = "paused"
	WantStopped Desired = "stopped"
)

// pauseMode is what clients shall meet.
func (r *Record) pauseMode() listeners.PauseMode {
	if r.Desired != WantPaused {
		return listeners.NotPaused
	}
	return max(r.Spec.PauseMode, listeners.Hold)
}

// SpecDrain is a drain time that is as the listener's own spec says.
const SpecDrain time.Duration = -1

// drainTime is how long connections have to finish.
func (r *Record) drainTime(asked time.Duration) time.Duration {
	switch t := r.Spec.Drain.Timeout; {
	case asked >= 0:
		return asked
	case t != nil:
		return *t
	default:
		return DefaultDrain
	}
}

// Etag changes with every change of the record.
func (r *Record) Etag() string { return strconv.FormatInt(r.Revision, 36) }

// A Draft is what a client may say of a listener.
type Draft struct {
	Labels      map[string]string
	Annotations map[string]string
	Listen      []string
	Handler     listeners.HandlerSpec
	Options     map[string]listeners.Value
	Desired     Desired
	Concurrency listeners.Concurrency
	PauseMode   listeners.PauseMode
	Drain       listeners.DrainPolicy
	Access      listeners.AccessPolicy
	Proxy       listeners.ProxyPolicy
	TLS         *listeners.TLSPolicy
}

// draft returns the record as a Draft that may be changed.
func (r *Record) draft() Draft {
	d := Draft{
		Labels: maps.Clone(r.Labels), Annotations: maps.Clone(r.Annotations), Handler: r.Spec.Handler,
		Options: maps.Clone(r.Spec.Options), Desired: r.Desired, Concurrency: r.Spec.Concurrency, PauseMode: r.Spec.PauseMode, Drain: r.Spec.Drain,
		Access: r.Spec.Access, Proxy: r.Spec.Proxy, TLS: r.Spec.TLS,
	}
	for _, a := range r.Spec.Listen {
		d.Listen = append(d.Listen, a.String())
	}
	return d
}

// apply makes the record say what d says. changed is false when it did before.
func (r *Record) apply(d Draft, now time.Time) (changed bool, err error) {
	faults := append(checkTexts("labels", d.Labels), checkTexts("annotations", d.Annotations)...)
	spec, err := listeners.ParseSpec(d.Listen, d.Handler, d.Options)
	if err == nil {
		spec, err = spec.WithAccess(d.Access)
	}
	spec, policy := spec.WithPolicy(d.PauseMode, d.Drain)
	spec, proxy := spec.WithProxy(d.Proxy)
	spec, tls := spec.WithTLS(d.TLS)
	if err == nil {
		spec, err = spec.WithConcurrency(d.Concurrency)
	}
	if err := invalid(append(faults, listeners.Violations(errors.Join(err, policy, proxy, tls))...)); err != nil {
		return false, err
	}
	if r.Generation > 0 && r.Desired == d.Desired && spec.Equal(r.Spec) && maps.Equal(r.Labels, d.Labels) && maps.Equal(r.Annotations, d.Annotations) {
		return false, nil
	}
	r.Labels, r.Annotations, r.Spec, r.Desired = d.Labels, d.Annotations, spec, d.Desired
	if d.Desired != WantPaused {
		r.ResumeAt = time.Time{}
	}
	r.touch(now)
	return true, nil
}

// touch notes that what is wanted changed.
func (r *Record) touch(now time.Time) {
	r.Generation++
	r.Updated = now
}

// newRecord returns the record of a listener that is to be made.
func newRecord(name string) *Record {
	uid := newUID()
	if name == "" {
		name = "listener-" + uid[:8]
	}
	return &Record{Name: name, UID: uid, Created: time.Now()}
}

const (
	maxTexts = 64   // labels, or annotations, of one listener
	maxText  = 4096 // bytes of one
)

// checkTexts refuses what would break a line of a log or a terminal.
func checkTexts(field string, texts map[string]string) (faults []*listeners.Violation) {
	if len(texts) == 0 {
		return nil
	}
	if len(texts) > maxTexts {
		faults = append(faults, &listeners.Violation{Field: field, Message: fmt.Sprintf("has %d entries; at most %d", len(texts), maxTexts)})
	}
	for _, k := range slices.Sorted(maps.Keys(texts)) {
		if k == "" || !plain(k) {
			faults = append(faults, &listeners.Violation{
				Field: field, Message: fmt.Sprintf("%.40q cannot be a key: it is empty, has a control character, or is longer than %d bytes", k, maxText),
			})
		}
		if !plain(texts[k]) {
			faults = append(faults, &listeners.Violation{
				Field: field + "." + k, Message: fmt.Sprintf("%.40q has a control character, or is longer than %d bytes", texts[k], maxText),
			})
		}
	}
	return faults
}

func plain(s string) bool {
	return len(s) <= maxText && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// isName reports whether name is ^[a-z0-9][a-z0-9._-]{0,62}$.
func isName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return 0 < len(name) && len(name) <= 63
}

func checkName(name string) error {
	if isName(name) {
		return nil
	}
	return invalid([]*listeners.Violation{{
		Field:   "listener_id",
		Message: fmt.Sprintf("%.80q is not a name: a lower-case letter or digit, then up to 62 lower-case letters, digits, dots, underscores or dashes", name),
	}})
}

// invalid makes one error of all that is wrong with a request.
func invalid(faults []*listeners.Violation) error {
	if len(faults) == 0 {
		return nil
	}
	return &Invalid{faults}
}

// Invalid is a request with fields that are not as they must be.
type Invalid struct{ Violations []*listeners.Violation }

// Error names the first, and how many more there are.
func (e *Invalid) Error() string {
	text := e.Violations[0].Error()
	if n := len(e.Violations) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// Reason is that of the first.
func (e *Invalid) Reason() listeners.Reason {
	if r := e.Violations[0].Reason; r != "" {
		return r
	}
	return listeners.SpecInvalid
}

// Is reports whether target is the Reason.
func (e *Invalid) Is(target error) bool { return target == error(e.Reason()) }

// newUID returns a random UUID (RFC 9562, version 4).
func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := make([]byte, 0, 37)
	for _, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		text = hex.AppendEncode(append(text, '-'), part)
	}
	return string(text[1:])
}
