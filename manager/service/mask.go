package service

import (
	"maps"
	"slices"
	"strings"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// draftOf is what a request says of a listener that is to be made.
func draftOf(l *pb.Listener) (manager.Draft, error) {
	s := l.GetSpec()
	values, faults := valuesFromPB("spec.options", s.GetOptions())
	d := manager.Draft{
		Labels: l.GetLabels(), Annotations: l.GetAnnotations(), Listen: s.GetListen(), Handler: handlerFromPB(s.GetHandler()),
		Options: values, Desired: desiredFromPB[s.GetDesiredState()],
	}
	if _, known := desiredFromPB[s.GetDesiredState()]; !known {
		faults = append(faults, &listeners.Violation{Field: "spec.desired_state", Message: "is not known"})
	}
	var err error
	if d.Concurrency, err = concurrencyFromPB(s.GetConcurrency()); err != nil {
		faults = append(faults, listeners.Violations(err)...)
	}
	if d.PauseMode, err = pauseModeFromPB(s.GetPauseMode()); err != nil {
		faults = append(faults, &listeners.Violation{Field: "spec.pause_mode", Message: "is not known"})
	}
	if d.Drain, err = drainPolicyFromPB(s.GetDrain()); err != nil {
		faults = append(faults, listeners.Violations(err)...)
	}
	if d.Proxy, err = proxyFromPB(s.GetProxyProtocol()); err != nil {
		faults = append(faults, listeners.Violations(err)...)
	}
	if d.TLS, err = tlsFromPB(s.GetTls()); err != nil {
		faults = append(faults, listeners.Violations(err)...)
	}
	if d.Access, err = accessFromPB(s.GetAccess()); err != nil {
		faults = append(faults, listeners.Violations(err)...)
	}
	if len(faults) > 0 {
		return d, &manager.Invalid{Violations: faults}
	}
	return d, nil
}

// editOf turns a field mask into a change of a draft. Without a mask all fields
// that are set are changed; * replaces everything.
func editOf(l *pb.Listener, paths []string) (func(*manager.Draft) error, error) {
	sent, err := draftOf(l)
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		paths = setPaths(l)
	}
	edits := make([]func(*manager.Draft), 0, len(paths))
	if slices.Contains(paths, "*") {
		return func(d *manager.Draft) error { *d = sent; return nil }, nil
	}
	var faults []*listeners.Violation
	for _, path := range paths {
		edit := editPath(path, &sent)
		if edit == nil {
			faults = append(faults, &listeners.Violation{Field: "update_mask", Message: path + " cannot be changed; it is one of labels, annotations, spec.desired_state, spec.listen, spec.handler, spec.concurrency, spec.options, spec.access, spec.tls, spec.proxy_protocol, spec.drain, spec.pause_mode, and spec.options.NAME, labels.KEY, annotations.KEY"})
		}
		edits = append(edits, edit)
	}
	if len(faults) > 0 {
		return nil, &manager.Invalid{Violations: faults}
	}
	return func(d *manager.Draft) error {
		for _, edit := range edits {
			edit(d)
		}
		return nil
	}, nil
}

// setPaths are the fields of a request that are set. Options and labels are
// merged into what is there.
func setPaths(l *pb.Listener) (paths []string) {
	paths = make([]string, 0, 4)
	for k := range l.GetLabels() {
		paths = append(paths, "labels."+k)
	}
	for k := range l.GetAnnotations() {
		paths = append(paths, "annotations."+k)
	}
	for k := range l.GetSpec().GetOptions() {
		paths = append(paths, "spec.options."+k)
	}
	if len(l.GetSpec().GetListen()) > 0 {
		paths = append(paths, "spec.listen")
	}
	if l.GetSpec().GetHandler() != nil {
		paths = append(paths, "spec.handler")
	}
	if l.GetSpec().GetConcurrency() != pb.ListenerSpec_CONCURRENCY_UNSPECIFIED {
		paths = append(paths, "spec.concurrency")
	}
	if l.GetSpec().GetDesiredState() != pb.ListenerSpec_DESIRED_STATE_UNSPECIFIED {
		paths = append(paths, "spec.desired_state")
	}
	if l.GetSpec().GetProxyProtocol() != nil {
		paths = append(paths, "spec.proxy_protocol")
	}
	if l.GetSpec().GetTls() != nil {
		paths = append(paths, "spec.tls")
	}
	if l.GetSpec().GetAccess() != nil {
		paths = append(paths, "spec.access")
	}
	if l.GetSpec().GetDrain() != nil {
		paths = append(paths, "spec.drain")
	}
	if l.GetSpec().GetPauseMode() != pb.PauseMode_PAUSE_MODE_UNSPECIFIED {
		paths = append(paths, "spec.pause_mode")
	}
	return paths
}

// editPath returns the change for one path, nil for one that is not known.
func editPath(path string, sent *manager.Draft) func(*manager.Draft) {
	switch path {
	case "labels":
		return func(d *manager.Draft) { d.Labels = sent.Labels }
	case "annotations":
		return func(d *manager.Draft) { d.Annotations = sent.Annotations }
	case "spec.desired_state":
		return func(d *manager.Draft) { d.Desired = sent.Desired }
	case "spec.proxy_protocol":
		return func(d *manager.Draft) { d.Proxy = sent.Proxy }
	case "spec.tls":
		return func(d *manager.Draft) { d.TLS = sent.TLS }
	case "spec.access":
		return func(d *manager.Draft) { d.Access = sent.Access }
	case "spec.drain":
		return func(d *manager.Draft) { d.Drain = sent.Drain }
	case "spec.pause_mode":
		return func(d *manager.Draft) { d.PauseMode = sent.PauseMode }
	case "spec.listen":
		return func(d *manager.Draft) { d.Listen = sent.Listen }
	case "spec.handler":
		return func(d *manager.Draft) { d.Handler = sent.Handler }
	case "spec.concurrency":
		return func(d *manager.Draft) { d.Concurrency = sent.Concurrency }
	case "spec.options":
		return func(d *manager.Draft) { d.Options = sent.Options }
	case "spec":
		return func(d *manager.Draft) {
			labels, annotations := d.Labels, d.Annotations
			*d = *sent
			d.Labels, d.Annotations = labels, annotations
		}
	}
	if key, ok := strings.CutPrefix(path, "spec.options."); ok {
		return func(d *manager.Draft) { d.Options = merged(d.Options, sent.Options, listeners.OptionName(key)) }
	}
	if key, ok := strings.CutPrefix(path, "labels."); ok {
		return func(d *manager.Draft) { d.Labels = merged(d.Labels, sent.Labels, key) }
	}
	if key, ok := strings.CutPrefix(path, "annotations."); ok {
		return func(d *manager.Draft) { d.Annotations = merged(d.Annotations, sent.Annotations, key) }
	}
	return nil
}

// merged takes one key over; one that was not sent goes.
func merged[V any](have, sent map[string]V, key string) map[string]V {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]V{}
	}
	delete(out, key)
	if v, ok := sent[key]; ok {
		out[key] = v
	}
	return out
}
