package manager

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// powerCommits is how many there are: 500 is the long form.
var powerCommits = func() int {
	if n, err := strconv.Atoi(os.Getenv("POWER_COMMITS")); err == nil {
		return n
	}
	return 20
}()

// powerChanges is what is saved at once, the same for all who ask: names with
// their generation, 0 for what is deleted.
func powerChanges(commit int) map[string]int {
	r := rand.New(rand.NewPCG(1, uint64(commit)))
	changes := map[string]int{}
	for range 1 + r.IntN(4) {
		name := fmt.Sprintf("listener-%d", r.IntN(30))
		if changes[name] = commit + 1; r.IntN(4) == 0 {
			changes[name] = 0
		}
	}
	return changes
}

// TestBePowerless saves changes and tells what is saved, for TestStorePowerCut.
func TestBePowerless(t *testing.T) {
	dir := os.Getenv("POWER_DIR")
	if dir == "" {
		t.Skip("it is for TestStorePowerCut to run")
	}
	s, _, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range powerCommits {
		var changes []change
		for name, generation := range powerChanges(i) {
			c := change{name: name}
			if generation > 0 {
				n, err := strconv.Atoi(strings.TrimPrefix(name, "listener-"))
				if err != nil {
					t.Fatal(err)
				}
				c.put = storeRecord(t, n, generation)
			}
			changes = append(changes, c)
		}
		if err := s.commit(changes...); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(os.Stdout, "saved %d\n", i+1)
	}
}

// deed is what the child asked the kernel for.
type deed struct {
	call string // pwrite64, ftruncate, fdatasync, fsync, rename, saved
	dir  bool   // of the directory
	data []byte
	at   int64 // of what is written, or the new length, or how many are saved
}

// A powerCut has the file as a disk has it: what is synced is there; of all
// else any part may be.
type powerCut struct {
	durable []byte
	pending []deed
	named   bool // the name is on disk
	renamed bool // the name is there
	saved   int
}

func (p *powerCut) do(d deed) {
	switch d.call {
	case "saved":
		p.saved = int(d.at)
	case "rename":
		p.renamed = true
	case "fsync", "fdatasync":
		if d.dir {
			p.named = p.renamed
			break
		}
		for _, w := range p.pending {
			p.durable = w.onto(p.durable, 0, len(w.data))
		}
		p.pending = nil
	default:
		p.pending = append(p.pending, d)
	}
}

// onto writes a part of what was asked for.
func (d deed) onto(image []byte, from, to int) []byte {
	if d.call == "ftruncate" {
		image = append(image, make([]byte, max(0, int(d.at)-len(image)))...)
		return image[:d.at]
	}
	if end := int(d.at) + to; end > len(image) {
		image = append(image, make([]byte, end-len(image))...)
	}
	copy(image[int(d.at)+from:], d.data[from:to])
	return image
}

// lost is the file after a power cut: of what was not synced some sectors are
// there, in no order.
func (p *powerCut) lost(chance float64) []byte {
	image := bytes.Clone(p.durable)
	for _, i := range rand.Perm(len(p.pending)) {
		w := p.pending[i]
		if w.call == "ftruncate" && rand.Float64() < chance {
			image = w.onto(image, 0, 0)
		}
		for from := 0; from < len(w.data); from += 512 {
			if rand.Float64() < chance {
				image = w.onto(image, from, min(from+512, len(w.data)))
			}
		}
	}
	return image
}

// The power goes after any system call of a daemon that saves changes, and of
// all that was not synced any part reaches the disk, in any order: what was
// acknowledged is there, and what is half saved is not.
func TestStorePowerCut(t *testing.T) {
	deeds := record(t)
	expected := []map[string]int{{}}
	for i := range powerCommits {
		next := maps.Clone(expected[i])
		for name, generation := range powerChanges(i) {
			if next[name] = generation; generation == 0 {
				delete(next, name)
			}
		}
		expected = append(expected, next)
	}
	var p powerCut
	dir, cuts, ahead := memoryDir(t), 0, 0
	path := filepath.Join(dir, "state.db")
	for i, d := range deeds {
		p.do(d)
		for _, chance := range []float64{0, 1, 0.5, 0.9} {
			if cuts++; !p.named && (chance == 0 || !p.renamed) {
				if p.saved > 0 {
					t.Fatal("it was acknowledged before it had a name")
				}
				continue
			}
			if err := os.WriteFile(path, p.lost(chance), 0o600); err != nil {
				t.Fatal(err)
			}
			records, err := reopen(dir)
			if err != nil {
				t.Fatalf("power cut after call %d (%s), %d changes saved: %v", i, d.call, p.saved, err)
			}
			is := map[string]int{}
			for _, r := range records {
				is[r.Name] = int(r.Generation)
			}
			switch next := min(p.saved+1, powerCommits); {
			case maps.Equal(is, expected[p.saved]):
			case maps.Equal(is, expected[next]):
				ahead++ // it was on disk and not yet acknowledged
			default:
				t.Fatalf("power cut after call %d (%s), %d changes saved: there is\n%v, want\n%v", i, d.call, p.saved, is, expected[p.saved])
			}
			if cuts%20 == 0 {
				goesOn(t, dir)
			}
		}
	}
	t.Logf("%d changes, %d system calls, %d power cuts: all acknowledged changes were there; after %d the next one was there too", p.saved, len(deeds), cuts, ahead)
	if p.saved != powerCommits {
		t.Errorf("%d changes were saved", p.saved)
	}
}

// goesOn saves a change in what was left.
func goesOn(t *testing.T, dir string) {
	t.Helper()
	s, before, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.commit(change{"listener-99", storeRecord(t, 99, 1)}); err != nil {
		t.Error(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if after, err := reopen(dir); err != nil || len(after) != len(before)+1 {
		t.Errorf("%d records, were %d, %v", len(after), len(before), err)
	}
}

var deedForm = regexp.MustCompile(`^(\w+)\(([^<,"]*)(?:<([^>]*)>)?(?:, )?(.*)\)\s+= (-?\d+)`)

// record runs TestBePowerless and returns what it asked the kernel for.
func record(t *testing.T) (deeds []deed) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("there is no strace (apt-get install strace)")
	}
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	cmd := exec.Command("strace", "-f", "-y", "-xx", "-s", "1000000", "-o", trace, "-e", "trace=pwrite64,write,ftruncate,fsync,fdatasync,renameat2",
		os.Args[0], "-test.run", "^TestBePowerless$")
	cmd.Env = append(os.Environ(), "POWER_DIR="+filepath.Join(dir, "state"))
	if out, err := cmd.CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("PTRACE")) {
			t.Skipf("strace may not trace here: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	file, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines, begun := bufio.NewScanner(file), map[string]string{}
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		pid, line, _ := strings.Cut(lines.Text(), " ")
		line = strings.TrimSpace(line)
		if before, unfinished := strings.CutSuffix(line, " <unfinished ...>"); unfinished {
			begun[pid] = before
			continue
		}
		if _, after, resumed := strings.Cut(line, " resumed>"); resumed {
			line = begun[pid] + after
		}
		if m := deedForm.FindStringSubmatch(line); m != nil {
			if d, ok := parseDeed(t, dir, m); ok {
				deeds = append(deeds, d)
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return deeds
}

// parseDeed reads a line of strace's, and skips what is of other files.
func parseDeed(t *testing.T, dir string, m []string) (d deed, ok bool) {
	t.Helper()
	if m[5] == "-1" {
		t.Fatalf("it failed: %v", m)
	}
	args := strings.Split(m[4], ", ")
	text := func(i int) []byte {
		b, err := hex.DecodeString(strings.NewReplacer(`\x`, "", `"`, "").Replace(args[i]))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	number := func(i int) int64 {
		n, err := strconv.ParseInt(args[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	file := plainPath(m[3])
	switch call := m[1]; {
	case call == "renameat2":
		return deed{call: "rename"}, true
	case call == "write" && m[2] == "1":
		n, isSaved := strings.CutPrefix(string(text(0)), "saved ")
		if !isSaved {
			return d, false
		}
		saved, err := strconv.Atoi(strings.TrimSpace(n))
		return deed{call: "saved", at: int64(saved)}, err == nil
	case strings.HasPrefix(filepath.Base(file), "state.db"):
		d = deed{call: call}
		switch call {
		case "pwrite64":
			d.data, d.at = text(0), number(2)
		case "ftruncate":
			d.at = number(0)
		case "write":
			t.Fatalf("%v", m)
		}
		return d, true
	case call == "fsync" && strings.HasPrefix(file, dir):
		return deed{call: call, dir: file == filepath.Join(dir, "state")}, file == filepath.Join(dir, "state")
	default:
		return d, false
	}
}

// plainPath undoes -xx, which is for paths too.
func plainPath(s string) string {
	if b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, "")); err == nil && strings.HasPrefix(s, `\x`) {
		return string(b)
	}
	return s
}
