package cli

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// execFlags are the flags of --handler exec.
type execFlags struct {
	env          []string
	dir, user    string
	passListener bool
	killTimeout  time.Duration
}

func execHandler(f *startFlags) (*pb.Handler, error) {
	if len(f.command) == 0 {
		return nil, usagef("--handler exec needs a command after --, such as -- /usr/bin/cat")
	}
	env, err := parsePairs("--env", f.exec.env)
	if err != nil {
		return nil, err
	}
	h := &pb.ExecHandler{
		Command: f.command, Environment: env, Directory: f.exec.dir, User: f.exec.user, PassListener: f.exec.passListener,
	}
	if f.exec.killTimeout != 0 {
		h.KillTimeout = durationpb.New(f.exec.killTimeout)
	}
	return &pb.Handler{Kind: &pb.Handler_Exec{Exec: h}}, nil
}

// concurrency reads --concurrency.
func concurrency(word string) (pb.ListenerSpec_Concurrency, error) {
	switch word {
	case "":
		return pb.ListenerSpec_CONCURRENCY_UNSPECIFIED, nil
	case "loop":
		return pb.ListenerSpec_CONCURRENCY_LOOP, nil
	case "thread":
		return pb.ListenerSpec_CONCURRENCY_THREAD, nil
	case "process":
		return pb.ListenerSpec_CONCURRENCY_PROCESS, nil
	}
	return 0, usagef("--concurrency %q: want loop, thread, process", word)
}
