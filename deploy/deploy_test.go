// Package deploy_test holds the units to what docs/operations.md says of them.
package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// maxExposure is the worst that `systemd-analyze security` may say.
const maxExposure = 2.0

// directives are what a unit must say, and in no other way.
var directives = map[string][]string{
	"sockmgr.service": {
		"Type=notify", "NotifyAccess=main", "Restart=always", "RestartSec=0", "StartLimitIntervalSec=0", "WatchdogSec=30s", "FileDescriptorStoreMax=16384",
		"RuntimeDirectoryPreserve=yes", "RuntimeDirectory=sockmgr", "StateDirectory=sockmgr", "StateDirectoryMode=0700", "User=sockmgr", "Group=sockmgr", "UMask=0077",
		"AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "NoNewPrivileges=yes",
		"ProtectSystem=strict", "ReadOnlyPaths=/run", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "PrivateMounts=yes", "DevicePolicy=closed", "RemoveIPC=yes",
		"ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectKernelLogs=yes", "ProtectControlGroups=yes", "ProtectClock=yes", "ProtectHostname=yes",
		"ProtectProc=invisible", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK", "RestrictNamespaces=yes", "RestrictRealtime=yes",
		"RestrictSUIDSGID=yes", "LockPersonality=yes", "MemoryDenyWriteExecute=yes", "SystemCallArchitectures=native",
		"SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources", "SystemCallFilter=setrlimit prlimit64 @chown", "SystemCallErrorNumber=EPERM",
	},
	"sockmgr.socket": {
		"ListenStream=/run/sockmgr/control.sock", "SocketUser=sockmgr", "SocketGroup=sockmgr", "SocketMode=0660",
	},
}

// repeats may be in a unit more than once: later lines change what earlier ones say.
var repeats = []string{"SystemCallFilter"}

func TestDirectivesStay(t *testing.T) {
	for file, want := range directives {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for _, d := range want {
			if !slices.Contains(lines, d) {
				t.Errorf("%s has no line %q", file, d)
			}
		}
		seen := map[string]bool{}
		for _, line := range lines {
			key, _, is := strings.Cut(line, "=")
			if is && !strings.HasPrefix(line, "#") && seen[key] && !slices.Contains(repeats, key) {
				t.Errorf("%s says %s twice: the last one counts", file, key)
			}
			seen[key] = true
		}
	}
}

// analyze runs systemd-analyze, which asks no systemd here.
func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("SKIPPED: there is no systemd-analyze here")
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	return string(out), err
}

func TestExposure(t *testing.T) {
	out, err := analyze(t, "security", "--offline=true", "--no-pager", "sockmgr.service")
	found := regexp.MustCompile(`exposure level for sockmgr.service: ([0-9.]+)`).FindStringSubmatch(out)
	if err != nil || found == nil {
		t.Fatal(err, out)
	}
	if level, err := strconv.ParseFloat(found[1], 64); err != nil || level > maxExposure {
		t.Errorf("the exposure is %s: at most %.1f is wanted\n%s", found[1], maxExposure, out)
	} else {
		t.Log("systemd-analyze security:", found[1])
	}
}

// The program need not be installed for it: another one is named.
func TestVerify(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for file := range directives {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		there, err := exec.LookPath("true")
		if err != nil {
			t.Skip("SKIPPED: there is no program true here")
		}
		text = []byte(strings.Replace(string(text), "/usr/local/bin/sockmgr", there, 1))
		files = append(files, filepath.Join(dir, file))
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := analyze(t, append([]string{"verify", "--man=no"}, files...)...); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
