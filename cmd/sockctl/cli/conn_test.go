package cli

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func TestConnLs(t *testing.T) {
	f := inhabited(t)
	want(t, f.run(t, "conn", "ls"), 0, `
ID  LISTENER  REMOTE                LOCAL                 STATE  AGE  IDLE  IN      OUT
2a  web       tcp://10.0.0.7:51344  tcp://127.0.0.1:8080  open   3s   1s    2.0KiB  1B
`, "")
	same(t, "requests", f.requests(), `ListConnections {"pageSize":1000,"view":"basic"}`)
	want(t, f.run(t, "conn", "ls", "-o", "wide"), 0, `
ID  LISTENER  REMOTE                LOCAL                 STATE  AGE  IDLE  IN      OUT  FD  READS  WRITES  WAITS FOR          PEER                  PROGRAM  FAULTS
2a  web       tcp://10.0.0.7:51344  tcp://127.0.0.1:8080  open   3s   1s    2.0KiB  1B   9   1      0       readable,writable  evil\x1b[2J (pid 12)  -        -
`, "")
	f.requests()
	want(t, f.run(t, "conn", "ls", "-o", "name", "web", "listeners/dns", "--filter", "fd = 9 OR fd = 10"), 0, "2a\n", "")
	same(t, "requests", f.requests(), `
GetListener {"name":"listeners/web","view":"basic"}
GetListener {"name":"listeners/dns","view":"basic"}
ListConnections {"pageSize":1000,"filter":"(fd = 9 OR fd = 10) AND (listener = \"listeners/web\" OR listener = \"listeners/dns\")","view":"basic"}`)
	want(t, f.run(t, "conn", "ls", "nix"), 4, "", "Error: no listener is called nix\n  reason LISTENER_NOT_FOUND\n")
	f.conns = nil
	want(t, f.run(t, "conn", "ls", "-o", "json"), 0, "{\n  \"connections\": []\n}\n", "")
}

// What a list is sorted by is shown.
func TestConnLsSort(t *testing.T) {
	f := inhabited(t)
	want(t, f.run(t, "conn", "ls", "--sort", "rtt", "--limit", "3", "web"), 0, `
ID  LISTENER  REMOTE                LOCAL                 STATE  AGE  IDLE  IN      OUT  RTT     RETRANSMITS
2a  web       tcp://10.0.0.7:51344  tcp://127.0.0.1:8080  open   3s   1s    2.0KiB  1B   1.23ms  0
`, "")
	same(t, "requests", f.requests(), `
GetListener {"name":"listeners/web","view":"basic"}
ListConnections {"pageSize":3,"filter":"listener = \"listeners/web\"","orderBy":"tcp_info.rtt desc","view":"basic"}`)
	want(t, f.run(t, "conn", "ls", "--sort", "queue"), 0, `
ID  LISTENER  REMOTE                LOCAL                 STATE  AGE  IDLE  IN      OUT  TO SEND
2a  web       tcp://10.0.0.7:51344  tcp://127.0.0.1:8080  open   3s   1s    2.0KiB  1B   1.0KiB
`, "")
	f.requests()
	for by, order := range map[string]string{
		"retransmits": "tcp_info.total_retransmits desc", "sent": "sent_bytes desc", "received": "received_bytes desc",
		"idle": "last_active_time", "age": "create_time", "peer.pid desc, name": "peer.pid desc, name",
	} {
		want(t, f.run(t, "conn", "ls", "-o", "name", "--sort", by), 0, "2a\n", "")
		same(t, "requests", f.requests(), `ListConnections {"pageSize":1000,"orderBy":"`+order+`","view":"basic"}`)
	}
	f.conns = append(f.conns, f.conns[0], f.conns[0])
	want(t, f.run(t, "conn", "ls", "-o", "name", "--limit", "3"), 0, "2a\n2a\n2a\n", "")
	same(t, "requests", f.requests(), `ListConnections {"pageSize":3,"view":"basic"}`)
}

func TestConnWatch(t *testing.T) {
	f := inhabited(t)
	gone := proto.CloneOf(f.conns[0])
	gone.State, gone.CloseReason, gone.SentBytes = pb.Connection_STATE_CLOSED, "reset", 5<<20
	f.connEvents = []*pb.WatchConnectionsResponse{
		{Type: pb.WatchConnectionsResponse_TYPE_OPENED, Connection: f.conns[0]},
		{Type: pb.WatchConnectionsResponse_TYPE_SYNCED},
		{Type: pb.WatchConnectionsResponse_TYPE_CLOSED, Connection: gone, Dropped: 7},
	}
	ended := "note: 7 events left out: more than can be shown this fast\nError: the daemon at unix://" + f.path + " ended the watch\n"
	want(t, f.run(t, "conn", "ls", "-w", "web"), 8, `
ID      LISTENER      REMOTE                     LOCAL                      STATE        AGE   IDLE  IN         OUT        REASON
2a      web           tcp://10.0.0.7:51344       tcp://127.0.0.1:8080       open         3s    1s    2.0KiB     1B         -
2a      web           tcp://10.0.0.7:51344       tcp://127.0.0.1:8080       closed       3s    1s    2.0KiB     5.0MiB     reset
`, ended)
	same(t, "requests", f.requests(), `
GetListener {"name":"listeners/web","view":"basic"}
WatchConnections {"filter":"listener = \"listeners/web\"","sendInitial":true}`)
	got := f.run(t, "conn", "ls", "-w", "--interval", "1s", "-o", "json")
	same(t, "requests", f.requests(), `WatchConnections {"sendInitial":true,"updateInterval":"1s"}`)
	if lines := strings.Split(strings.TrimSpace(got.stdout), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], `{"type":"closed","connection":{"name":"connections/2a"`) || !strings.Contains(lines[1], `"closeReason":"reset"`) {
		t.Error(got.stdout)
	}
	for _, args := range [][]string{{"--interval", "1s"}, {"-w", "--sort", "rtt"}, {"-w", "--limit", "1"}} {
		if got := f.run(t, append([]string{"conn", "ls"}, args...)...); got.exit != 2 {
			t.Errorf("%v: %d %s", args, got.exit, got.stderr)
		}
	}
}

func TestConnClose(t *testing.T) {
	f := inhabited(t)
	closing := func(exit int, stdout, stderr, requests string, args ...string) {
		t.Helper()
		f.requests()
		want(t, f.run(t, append([]string{"conn", "close"}, args...)...), exit, stdout, stderr)
		same(t, "requests", f.requests(), requests)
	}
	closing(0, "closed 1\n", "", `CloseConnections {"filter":"name = \"connections/2a\""}`, "2a")
	closing(0, "closed 1\n", "", `CloseConnections {"filter":"name = \"connections/2a\"","reset":true}`, "connections/2a", "--reset")
	closing(0, "closed 1\n", "", `CloseConnections {"filter":"name = \"connections/2a\"","grace":"10s"}`, "2a", "--grace", "10s")
	closing(0, "closed 1\n", "", `
GetConnection {"name":"10.0.0.7:51344"}
CloseConnections {"filter":"name = \"connections/2a\""}`, "10.0.0.7:51344")
	const missing = "Error: 99: no such connection, it may have closed\n  reason CONNECTION_NOT_FOUND\n"
	closing(4, "", missing, `CloseConnections {"filter":"name = \"connections/99\""}`, "99")
	closing(10, "closed 1\n", missing, `
CloseConnections {"filter":"name = \"connections/99\""}
CloseConnections {"filter":"name = \"connections/2a\""}`, "99", "2a")
	closing(0, "closed 0\n", "", `CloseConnections {"filter":"fd = 1"}`, "--filter", "fd = 1")
	closing(0, "closed 1\n", "", `
GetListener {"name":"listeners/web","view":"basic"}
CloseConnections {"filter":"listener = \"listeners/web\""}`, "--all", "web", "-y")
	closing(4, "", "Error: no listener is called nix\n  reason LISTENER_NOT_FOUND\n", `GetListener {"name":"listeners/nix","view":"basic"}`,
		"--all", "nix", "-y")
	f.progress = &pb.CloseConnectionsResponse{Matched: 3, Closed: 1, Failed: 2, Done: true}
	closing(10, "closed 1\n", "Error: could not close 2 of 3 connections\n", `CloseConnections {"filter":"x"}`, "--filter", "x")
	f.progress = &pb.CloseConnectionsResponse{Matched: 2, Failed: 2, Done: true}
	closing(7, "closed 0\n", "Error: could not close 2 connections\n", `CloseConnections {"filter":"x"}`, "--filter", "x")
	want(t, f.run(t, "conn", "close", "--filter", "x", "-o", "json"), 7, `
{
  "matched": 2,
  "closed": 0,
  "failed": 2,
  "done": true
}
`, `{"error":{"exitCode":7,"code":"FAILED_PRECONDITION","message":"could not close 2 connections"}}`+"\n")
}

func TestConnCloseAsks(t *testing.T) {
	const question = "Close 1 connection of web? [y/N] "
	for answer, yes := range map[string]bool{"y\n": true, "YES\n": true, "n\n": false, "\n": false, "": false, "y": true} {
		t.Run(answer, func(t *testing.T) {
			f := inhabited(t)
			w := f.world()
			w.terminal, w.stdin = true, answer
			got := w.run(t, "conn", "close", "--all", "web")
			if yes {
				want(t, got, 0, "closed 1\n", question)
			} else {
				want(t, got, 1, "", question+"Error: nothing is closed: the answer was not yes\n")
			}
			if closed := strings.Count(f.requests(), `CloseConnections {"filter":"listener = \"listeners/web\""}`) == 1; closed != yes {
				t.Errorf("closed: %v", closed)
			}
		})
	}
}
