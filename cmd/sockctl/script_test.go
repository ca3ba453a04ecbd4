//go:build linux

package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sockmgr/sockmgr/cmd/sockmgr/daemon"
)

// patience is how long a script waits for what another process does in its own
// time. It is never waited for in full, unless something is broken.
const patience = 30 * time.Second

// SOCKMGR_TEST_LOOPS=4 runs all tests with daemons of so many loops.
func TestMain(m *testing.M) {
	if n := os.Getenv("SOCKMGR_TEST_LOOPS"); n != "" {
		if err := os.Setenv("SOCKMGR_LOOPS", n); err != nil {
			panic(err)
		}
	}
	testscript.Main(m, map[string]func(){
		"sockmgr": func() { os.Exit(daemon.Main(os.Args[1:], os.Stdout, os.Stderr)) }, //nolint:forbidigo // it is the main of sockmgr
		"sockctl": main,
		"heir":    heirMain,
		"probe":   probeMain,
	})
}

// TestScript runs the real client beside the real daemon. Each script has a
// short directory of its own, $SM: the daemon's control socket and state are
// there, and both programs know it from the environment. The commands beyond
// those of package testscript:
//
//	daemon NAME COMMAND...         start a daemon and wait for its ready line; $NAME is its pid, NAME.log what it logs
//	end NAME [TERM|INT|KILL]       send the signal, or none, and wait for its good end
//	signal NAME TERM|INT           send the signal and go on
//	exits CODE COMMAND...          run a command that must end with that code
//	interrupt COMMAND...           run a client, interrupt it once it is connected; it must end with 130
//	[!] json stdout PATH [VALUE]   what a command printed has that value there: .listeners[0].status.state running
//	get VAR stdout PATH            put such a value into a variable
//	eventually PATH VALUE COMMAND  run a command again until what it prints has that value there
//	[!] dial NAME URI              connect; $NAME is the client's own address
//	send NAME TEXT                 TEXT knows \n and \x00
//	expect NAME TEXT               read just that, or one datagram that is just that
//	hear NAME PATH                 bind a Unix path for datagrams, to expect them
//	close NAME [write]             the client goes, or sends no more
//	closed NAME [reset]            the daemon has closed
//	await URI                      until somebody takes connections there
//	crowd join COUNT URI           connect that many clients of an echo, each of which says and hears something
//	crowd lost COUNT FILE          so many of them, whom FILE (conn ls) names, are closed; all others still hear what they say
//	knock COUNT URI                begin connections, and do not wait for what comes of them
//	scrape DAEMON FILE             put its metrics into a file
func TestScript(t *testing.T) { runScripts(t, "testdata/script") }

// TestPeers runs the scripts of testdata/peers in the same way. Each needs
// programs of others, says which, and is skipped where one is missing;
// make test-peers tells.
func TestPeers(t *testing.T) { runScripts(t, "testdata/peers") }

func runScripts(t *testing.T, dir string) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir:                dir,
		RequireUniqueNames: true,
		Setup:              setUp,
		Condition:          condition,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon": cmdDaemon, "end": cmdEnd, "signal": cmdSignal, "exits": cmdExits, "interrupt": cmdInterrupt,
			"json": cmdJSON, "get": cmdGet, "eventually": cmdEventually,
			"dial": cmdDial, "hear": cmdHear, "send": cmdSend, "expect": cmdExpect, "close": cmdClose, "closed": cmdClosed,
			"knock": cmdKnock, "scrape": cmdScrape, "await": cmdAwait, "crowd": cmdCrowd,
		},
	})
}

// world is what one script has started.
type world struct {
	daemons map[string]*process
	conns   map[string]net.Conn
	crowd   []net.Conn
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// setUp makes the world of a script. A Unix path has 107 bytes at most, and
// $WORK may have more.
func setUp(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "sm")
	if err != nil {
		return err
	}
	w := &world{daemons: map[string]*process{}, conns: map[string]net.Conn{}}
	env.Values[worldKey{}] = w
	control := "unix://" + dir + "/c.sock"
	env.Vars = append(env.Vars,
		"SM="+dir, "SOCKMGR_ADDR="+control, "SOCKMGR_CONTROL="+control, "SOCKMGR_STATE="+dir+"/state",
		"GORACE=atexit_sleep_ms=0", // the race detector would wait for a second at every exit
	)
	if n := os.Getenv("SOCKMGR_TEST_LOOPS"); n != "" {
		env.Vars = append(env.Vars, "SOCKMGR_LOOPS="+n)
	}
	env.Defer(func() {
		for _, c := range w.conns {
			c.Close()
		}
		for _, c := range w.crowd {
			if c != nil {
				c.Close()
			}
		}
		for name, p := range w.daemons {
			if err := errors.Join(p.stop(os.Interrupt), p.fault()); err != nil {
				env.T().Log(name, err)
				env.T().FailNow()
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			env.T().Log(err)
		}
	})
	// Some scripts call as another user, who must get at the programs.
	program, err := exec.LookPath("sockctl")
	if err != nil {
		return err
	}
	return os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755)
}

// condition adds what a script may need of the host.
func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "ipv6":
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			return false, nil //nolint:nilerr // that is the answer
		}
		return true, l.Close()
	}
	return false, errors.New("no such condition")
}

// cmdExits runs a command that must end with a code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := exitCode(ts.Exec(args[1], args[2:]...)); got != want {
		ts.Fatalf("%s ended with %d, not %d", strings.Join(args[1:], " "), got, want)
	}
}

// exitCode is -1 for a process that a signal ended, -2 for one that never ran.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -2
}
