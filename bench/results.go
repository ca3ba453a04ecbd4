package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// results are what a comparison writes as JSON.
type results struct {
	Command string    `json:"command"`
	Date    string    `json:"date"`
	CPU     string    `json:"cpu"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	OneCPU  bool      `json:"oneCpu"` // server and load shared it
	Rounds  int       `json:"rounds"`
	Seconds float64   `json:"seconds"` // measured in a round, for each server
	Missing []missing `json:"missing,omitempty"`
	Tables  []*table  `json:"workloads"`

	versions map[string]string
}

// missing is a program that is not installed.
type missing struct {
	Name string `json:"name"`
	How  string `json:"install"`
}

// table is one workload.
type table struct {
	Name string `json:"name"`
	What string `json:"what"`
	Unit string `json:"unit"`
	Rows []row  `json:"servers"`
}

// row is one server. Ratios are to the first row, of the same run.
type row struct {
	Server     string   `json:"server"`
	Version    string   `json:"version,omitempty"`
	Rate       float64  `json:"rate"` // a second, median
	RateRatio  float64  `json:"rateRatio"`
	RateLeast  float64  `json:"rateRatioLeast"`
	RateMost   float64  `json:"rateRatioMost"`
	CPU        float64  `json:"cpuMicros"` // of the server for each, median
	CPURatio   float64  `json:"cpuRatio"`
	BestCPU    float64  `json:"bestCpuMicros"`
	BestRatio  float64  `json:"bestCpuRatio"`
	P50        float64  `json:"p50Micros"`
	P99        float64  `json:"p99Micros"`
	OtherUsage float64  `json:"otherCpus"` // used by other processes meanwhile, median
	Notes      []string `json:"notes,omitempty"`
}

func newResults(cfg *config, cpus cpuPair) *results {
	var uts unix.Utsname
	_ = unix.Uname(&uts) // an empty release is no reason to stop
	res := &results{
		Command: strings.Join(append([]string{"bench"}, os.Args[1:]...), " "), Date: time.Now().Format(time.DateOnly), CPU: cpuModel(),
		Kernel: unix.ByteSliceToString(uts.Release[:]), Go: goVersion(), OneCPU: cpus.shared, Rounds: cfg.rounds, Seconds: cfg.window.Seconds(),
		versions: map[string]string{},
	}
	for _, w := range workloads() {
		for _, p := range w.programs {
			if _, seen := res.versions[p.name]; seen {
				continue
			}
			res.versions[p.name] = ""
			if _, err := exec.LookPath(p.name); err != nil {
				res.Missing = append(res.Missing, missing{p.name, p.how})
				continue
			}
			res.versions[p.name] = p.version()
		}
	}
	return res
}

// add makes a table of a comparison.
func (res *results) add(c *comparison) *table {
	t := &table{Name: c.name, What: c.what, Unit: c.unit}
	cpu := func(s sample) float64 { return float64(s.cpu) / float64(time.Microsecond) }
	rate := func(s sample) float64 { return s.rate }
	first := c.rounds[0]
	for i, name := range c.names {
		rounds := c.rounds[i]
		rates := quotients(rounds, first, rate)
		t.Rows = append(t.Rows, row{
			Server: name, Version: res.versions[name],
			Rate: median(rounds, rate), RateRatio: middle(rates), RateLeast: rates[0], RateMost: rates[len(rates)-1],
			CPU: median(rounds, cpu), CPURatio: middle(quotients(rounds, first, cpu)), BestCPU: least(rounds, cpu), BestRatio: least(rounds, cpu) / least(first, cpu),
			P50:        median(rounds, func(s sample) float64 { return us(s.p50) }),
			P99:        median(rounds, func(s sample) float64 { return us(s.p99) }),
			OtherUsage: median(rounds, func(s sample) float64 { return s.others }),
			Notes:      doubts(name, rounds),
		})
	}
	res.Tables = append(res.Tables, t)
	return t
}

// quotients are those of the rounds, sorted.
func quotients[T any](a, b []T, of func(T) float64) []float64 {
	all := make([]float64, len(a))
	for i := range a {
		all[i] = of(a[i]) / of(b[i])
	}
	slices.Sort(all)
	return all
}

func least[T any](rounds []T, of func(T) float64) float64 {
	value := of(rounds[0])
	for _, s := range rounds[1:] {
		value = min(value, of(s))
	}
	return value
}

func (t *table) print(out *report) {
	out.printf("\n  %s: %s\n", t.Name, t.What)
	out.printf("  %-14s %11s %22s %12s %9s %10s %9s %9s %9s\n", "server", t.Unit+"/s", "ratio [least-most]", "CPU us", "ratio", "best us", "ratio", "p50 us", "p99 us")
	for _, r := range t.Rows {
		out.printf("  %-14s %11s %22s %12.2f %9.2f %10.2f %9.2f %9.0f %9.0f\n", r.Server, thousands(r.Rate),
			fmt.Sprintf("%.2f [%.2f-%.2f]", r.RateRatio, r.RateLeast, r.RateMost), r.CPU, r.CPURatio, r.BestCPU, r.BestRatio, r.P50, r.P99)
	}
	for _, r := range t.Rows {
		for _, n := range r.Notes {
			out.printf("    note: %s\n", n)
		}
	}
}

// markdown is the same for a page.
func (res *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`, %s, Linux %s, %s, %s; %d rounds of %g s.\n", res.Command, res.CPU, res.Kernel, res.Go, res.Date, res.Rounds, res.Seconds)
	for _, m := range res.Missing {
		fmt.Fprintf(&b, "\n%s was not installed (`%s`).\n", m.Name, m.How)
	}
	for _, t := range res.Tables {
		fmt.Fprintf(&b, "\n**%s**: %s\n\n", t.Name, t.What)
		fmt.Fprintf(&b, "| server | rate ratio [least-most] | CPU ratio | best CPU ratio | CPU us/%s | p99 us | other CPUs |\n|---|---|---|---|---|---|---|\n", t.Unit)
		for _, r := range t.Rows {
			fmt.Fprintf(&b, "| %s | %.2f [%.2f-%.2f] | %.2f | %.2f | %.2f | %.0f | %.2f |\n", strings.TrimSpace(r.Server+" "+r.Version),
				r.RateRatio, r.RateLeast, r.RateMost, r.CPURatio, r.BestRatio, r.CPU, r.P99, r.OtherUsage)
		}
	}
	return b.String()
}

// write writes what was asked for.
func (res *results) write(jsonPath, markdownPath string) error {
	if jsonPath != "" {
		text, err := json.MarshalIndent(res, "", "  ")
		if err == nil {
			err = os.WriteFile(jsonPath, append(text, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	if markdownPath != "" {
		return os.WriteFile(markdownPath, []byte(res.markdown()), 0o644)
	}
	return nil
}
