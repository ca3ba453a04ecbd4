//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sockmgr/sockmgr/internal/succession"
)

// heirMain is a program that begins to take over from a daemon, and does not get
// to the end of it. How is the name of the directory that it is in.
func heirMain() {
	cmdline, _ := os.ReadFile("/proc/self/cmdline") // os.Args[0] is the name only
	path, _, _ := strings.Cut(string(cmdline), "\x00")
	how := filepath.Base(filepath.Dir(path))
	say := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "heir: "+format+"\n", args...)
	}
	conn, err := succession.Inherited()
	if err != nil || conn == nil {
		say("%v", err)
		os.Exit(9) //nolint:forbidigo // it is the main of a program
	}
	end := func(at string) {
		if how == at {
			os.Exit(3) //nolint:forbidigo // as above
		}
		if how == at+"-hangs" {
			select {}
		}
	}
	end("at-once")
	hello := succession.Message{Step: succession.Hello, Protocol: succession.Protocol, Version: "of the test"}
	switch how {
	case "other-protocol":
		hello.Protocol = 99
	case "babbles":
		hello.Step = "what is this"
	}
	check := func(err error) {
		if err != nil {
			say("%v", err)
			os.Exit(4) //nolint:forbidigo // as above
		}
	}
	check(conn.Send(hello, time.Second))
	end("hello")
	_, _, err = conn.Receive(time.Minute, succession.Begin)
	check(err)
	if how == "refuses" {
		check(conn.Send(succession.Message{Step: succession.Failed, Error: "the moon is full"}, time.Second))
		end(how)
	}
	check(conn.Send(succession.Message{Step: succession.Valid}, time.Second))
	end("valid")
	_, _, err = conn.Receive(time.Minute, succession.Store)
	check(err)
	end("store")
	check(conn.Send(succession.Message{Step: succession.Open}, time.Second))
	for {
		m, _, err := conn.Receive(time.Minute, succession.Estate, succession.Files, succession.Part, succession.Whole)
		check(err)
		end(string(m.Step))
		if m.Step == succession.Whole {
			break
		}
	}
	say("does not know what to do: %s", how)
}

// heirAt is a path of the program that does so.
func heirAt(dir, how string) (string, error) {
	program, err := exec.LookPath("heir")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, how, "heir")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.Symlink(program, path)
}
