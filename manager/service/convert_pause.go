package service

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

var desiredToPB = map[manager.Desired]pb.ListenerSpec_DesiredState{
	manager.WantRunning: pb.ListenerSpec_DESIRED_STATE_RUNNING, manager.WantPaused: pb.ListenerSpec_DESIRED_STATE_PAUSED,
	manager.WantStopped: pb.ListenerSpec_DESIRED_STATE_STOPPED,
}

var desiredFromPB = map[pb.ListenerSpec_DesiredState]manager.Desired{
	pb.ListenerSpec_DESIRED_STATE_UNSPECIFIED: manager.WantRunning, pb.ListenerSpec_DESIRED_STATE_RUNNING: manager.WantRunning,
	pb.ListenerSpec_DESIRED_STATE_PAUSED: manager.WantPaused, pb.ListenerSpec_DESIRED_STATE_STOPPED: manager.WantStopped,
}

var pauseModeToPB = map[listeners.PauseMode]pb.PauseMode{
	listeners.NotPaused: pb.PauseMode_PAUSE_MODE_UNSPECIFIED, listeners.Hold: pb.PauseMode_PAUSE_MODE_HOLD,
	listeners.Stall: pb.PauseMode_PAUSE_MODE_STALL, listeners.Refuse: pb.PauseMode_PAUSE_MODE_REFUSE,
}

func pauseModeFromPB(m pb.PauseMode) (listeners.PauseMode, error) {
	for mode, name := range pauseModeToPB {
		if name == m {
			return mode, nil
		}
	}
	return 0, &listeners.Violation{Field: "mode", Message: "is not known"}
}

// policyToPB adds who may connect to a listener, how it is paused and drained,
// and how far that is.
func policyToPB(i *manager.Info, l *pb.Listener) {
	l.Spec.PauseMode = pauseModeToPB[i.Spec.PauseMode]
	if d := i.Spec.Drain; d != (listeners.DrainPolicy{}) {
		l.Spec.Drain = &pb.DrainPolicy{ResetRemaining: d.Reset}
		if d.LameDuck > 0 {
			l.Spec.Drain.LameDuck = durationpb.New(d.LameDuck)
		}
		if d.Timeout != nil {
			l.Spec.Drain.Timeout = durationpb.New(*d.Timeout)
		}
	}
	l.Spec.ProxyProtocol = proxyToPB(i.Spec.Proxy)
	l.Spec.Tls, l.Status.Tls = tlsToPB(i.Spec.TLS), tlsStatusToPB(i.Live.TLS)
	if a := i.Spec.Access; !a.IsZero() {
		l.Spec.Access = &pb.AccessPolicy{Allow: a.Allow, Deny: a.Deny, Reset_: a.Reset, AllowUids: a.UIDs}
	}
	if i.State == manager.Paused {
		l.Status.ResumeTime = timeToPB(i.ResumeAt)
	}
	if d := i.Live.Drain; !d.Began.IsZero() {
		l.Status.Drain = &pb.DrainStatus{
			StartTime: timeToPB(d.Began), Deadline: timeToPB(d.Until),
			InitialConnections: uint64(d.Initial), RemainingConnections: uint64(i.Live.Active), ClosedConnections: uint64(d.Cut),
		}
	}
}

func accessFromPB(p *pb.AccessPolicy) (listeners.AccessPolicy, error) {
	return listeners.ParseAccess(p.GetAllow(), p.GetDeny(), p.GetReset_(), p.GetAllowUids())
}

func drainPolicyFromPB(p *pb.DrainPolicy) (d listeners.DrainPolicy, err error) {
	d.Reset = p.GetResetRemaining()
	if d.Timeout, err = durationFromPB("spec.drain.timeout", p.GetTimeout(), maxDrain); err != nil {
		return d, err
	}
	lame, err := durationFromPB("spec.drain.lame_duck", p.GetLameDuck(), maxDrain)
	if lame != nil {
		d.LameDuck = *lame
	}
	return d, err
}

// maxDrain is the longest that connections may be given to finish.
const maxDrain = time.Hour

// drainFromPB checks a drain timeout; unset is that of the spec.
func drainFromPB(field string, d *durationpb.Duration) (time.Duration, error) {
	t, err := durationFromPB(field, d, maxDrain)
	if t == nil {
		return manager.SpecDrain, err
	}
	return *t, nil
}

// durationFromPB checks a duration; nil is unset.
func durationFromPB(field string, d *durationpb.Duration, most time.Duration) (*time.Duration, error) {
	if d == nil {
		return nil, nil
	}
	out := d.AsDuration()
	if err := d.CheckValid(); err != nil || out < 0 || out > most {
		return nil, &listeners.Violation{Field: field, Message: fmt.Sprintf("must be from 0s to %v", most)}
	}
	return &out, nil
}
