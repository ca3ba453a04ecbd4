package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// cpuPair says where the server and the load run.
type cpuPair struct {
	server, load int
	shared       bool // there is only one CPU
}

// takeCPUs picks two CPUs and moves all threads of this process to the one for
// the load.
func takeCPUs() (cpuPair, error) {
	p, err := pickCPUs()
	if err != nil {
		return p, err
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return p, err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err == nil {
			err = pinThread(tid, p.load)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return p, err
		}
	}
	return p, nil
}

// pickCPUs picks the first and the last CPU this process may use.
func pickCPUs() (cpuPair, error) {
	var mask unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mask); err != nil {
		return cpuPair{}, os.NewSyscallError("sched_getaffinity", err)
	}
	p := cpuPair{server: -1}
	for cpu := range 1024 {
		if mask.IsSet(cpu) {
			if p.server < 0 {
				p.server = cpu
			}
			p.load = cpu
		}
	}
	p.shared = p.server == p.load
	return p, nil
}

// anyCPU is for a server that may run everywhere.
const anyCPU = -1

func pinThread(tid, cpu int) error {
	var mask unix.CPUSet
	if mask.Set(cpu); cpu == anyCPU {
		mask.Fill() // the kernel takes those that the container has
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(tid, &mask))
}

// pinCommand is the hidden command that moves to a CPU and becomes another
// program, as taskset does: CPU PROGRAM ARGS... The program sees one CPU from
// its first instruction, so that its GOMAXPROCS is what it would ship with.
const pinCommand = "pin-and-exec"

func pinAndExec(args []string) error {
	cpu, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // exec keeps the affinity of the calling thread
	if err := pinThread(0, cpu); err != nil {
		return err
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", path, unix.Exec(path, args[1:], os.Environ()))
}
