package manager

import (
	"context"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// FindingStatus is the outcome of a check.
type FindingStatus uint8

// The outcomes.
const (
	FindingOK      FindingStatus = iota
	FindingWarning               // it works, and could be better
	FindingFailed                // it does not work
)

// A Finding is what one check of the host came to.
type Finding struct {
	Check   string // limits.nofile, sysctl.net.core.somaxconn, capability.net_admin
	Status  FindingStatus
	Message string // one sentence
	Fix     string // what mends it; empty of what is well
}

// few is fewer descriptors than a busy host needs.
const few = 1 << 16

// Diagnose looks for what is missing here, and for which feature. It asks the
// kernel each time.
func (m *Manager) Diagnose(ctx context.Context) ([]Finding, error) {
	all, err := m.List(ctx, "", math.MaxInt, false)
	if err != nil {
		return nil, err
	}
	found := []Finding{m.checkFiles(), m.checkStore()}
	if file, ok := strings.CutPrefix(m.Store(), "file:"); ok {
		found = append(found, checkStateMode(filepath.Dir(file)))
	}
	found = append(found, m.checkKept())
	found = append(found, checkCalls()...)
	found = append(found, checkPipes(), checkOverflow(), checkHandshakes(all))
	found = append(found, checkCapabilities()...)
	found = append(found, checkClamps(all)...)
	return append(found, checkListeners(all)...), nil
}

func (m *Manager) checkFiles() Finding {
	p := m.Process()
	f := Finding{Check: "limits.nofile", Message: fmt.Sprintf("%d of %d descriptors are in use", p.OpenFiles, p.FilesLimit)}
	const fix = "LimitNOFILE=1048576 in the unit, or ulimit -n, and start the daemon again"
	switch {
	case uint64(p.OpenFiles) >= p.FilesLimit*9/10:
		f.Status, f.Fix = FindingFailed, fix
	case p.FilesLimit < few:
		f.Status, f.Fix = FindingWarning, fix
		f.Message += ": each connection takes one, and with forward two"
	}
	return f
}

func (m *Manager) checkStore() Finding {
	f := Finding{Check: "state", Message: m.Store()}
	file, ok := strings.CutPrefix(m.Store(), "file:")
	if !ok {
		return Finding{"state", FindingWarning, "listeners are kept in memory, and lost when the daemon ends", "start the daemon with --state DIR"}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(file), &st); err != nil {
		return Finding{"state", FindingFailed, fmt.Sprintf("statfs %s: %v", filepath.Dir(file), err), "look after the directory of --state"}
	}
	switch free := st.Bavail * uint64(st.Bsize); {
	case free < 16<<20:
		f.Status, f.Fix = FindingFailed, "make room: no change can be kept without it"
		f.Message = fmt.Sprintf("%d KiB are free at %s", free>>10, filepath.Dir(file))
	case st.Type == unix.TMPFS_MAGIC:
		f.Status, f.Fix = FindingWarning, "start the daemon with --state on a disk"
		f.Message = file + " is in memory (tmpfs), and lost when the host goes down"
	}
	return f
}

func checkOverflow() Finding {
	const name = "net.ipv4.tcp_abort_on_overflow"
	if v, ok := listeners.Sysctl(name); ok && v != 0 {
		return Finding{"sysctl." + name, FindingWarning, "clients are reset while an accept queue is full, instead of trying again", "sysctl -w " + name + "=0"}
	}
	return Finding{Check: "sysctl." + name, Message: "clients that meet a full accept queue try again"}
}

// checkCapabilities tells what each capability is for.
func checkCapabilities() (found []Finding) {
	uses := map[string][]string{"CAP_SETUID": {"exec with --user"}, "CAP_SETGID": {"exec with --user"}}
	if first, ok := listeners.Sysctl("net.ipv4.ip_unprivileged_port_start"); ok && first > 0 {
		uses["CAP_NET_BIND_SERVICE"] = []string{fmt.Sprintf("ports below %d", first)}
	}
	uses["CAP_NET_ADMIN"] = []string{"pause with --mode stall"}
	for _, o := range listeners.Options {
		if o.Capability != "" {
			uses[o.Capability] = append(uses[o.Capability], o.Name)
		}
	}
	have := Capabilities()
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		f := Finding{Check: "capability." + strings.ToLower(strings.TrimPrefix(name, "CAP_")), Message: "for " + strings.Join(uses[name], ", ")}
		if !slices.Contains(have, name) {
			f.Status, f.Fix = FindingWarning, "AmbientCapabilities="+name+" in the unit"
			f.Message = "is missing, " + f.Message
		}
		found = append(found, f)
	}
	return found
}

// checkClamps finds what listeners want and the kernel does not give.
func checkClamps(all []Info) (found []Finding) {
	for _, o := range listeners.Options {
		limit, ok := o.ClampValue()
		if !ok {
			continue
		}
		f := Finding{Check: "sysctl." + o.Clamp, Message: fmt.Sprintf("is %d; no listener wants more of %s", limit, o.Name)}
		for i := range all {
			if want, ok := all[i].Spec.Options[o.Name].Any().(int64); ok && want > limit {
				f.Status, f.Fix = FindingWarning, fmt.Sprintf("sysctl -w %s=%d", o.Clamp, want)
				f.Message = fmt.Sprintf("is %d, and %s wants %s=%d", limit, all[i].Name, o.Name, want)
				limit = want
			}
		}
		if !slices.ContainsFunc(found, func(other Finding) bool { return other == f }) {
			found = append(found, f)
		}
	}
	return found
}

// checkListeners tells of those that do not run though they should.
func checkListeners(all []Info) []Finding {
	var found []Finding
	for i := range all {
		if all[i].State == Failed {
			found = append(found, Finding{"listeners." + all[i].Name, FindingFailed, all[i].Message, "sockctl inspect " + all[i].Name})
		}
	}
	if found == nil {
		return []Finding{{Check: "listeners", Message: fmt.Sprintf("none of %d has failed", len(all))}}
	}
	return found
}
