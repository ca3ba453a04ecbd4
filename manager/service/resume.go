package service

import (
	"strconv"
	"strings"

	"github.com/sockmgr/sockmgr/listeners"
)

// makeResume names a place in what this run of the daemon has told.
func makeResume(instance string, seq uint64) string {
	return instance + "." + strconv.FormatUint(seq, 36)
}

func parseResume(instance, token string) (uint64, error) {
	of, text, _ := strings.Cut(token, ".")
	seq, err := strconv.ParseUint(text, 36, 64)
	if of != instance || err != nil {
		return 0, &listeners.Fault{
			Reason: listeners.RevisionCompacted, Message: "the resume token is of another run of the daemon, or none at all",
			Fix: "list again and watch from there",
		}
	}
	return seq, nil
}
