package service

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/go-hclog"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

// Loggers are those whose level can be changed while the daemon runs. Each has
// a level of its own (hclog's IndependentLevels).
type Loggers struct {
	root   string
	byName map[string]hclog.Logger // not changed after NewLoggers
}

// NewLoggers returns the root and the named ones below it.
func NewLoggers(root hclog.Logger, names ...string) *Loggers {
	l := &Loggers{root: root.Name(), byName: map[string]hclog.Logger{root.Name(): root}}
	for _, name := range names {
		sub := root.Named(name)
		l.byName[sub.Name()] = sub
	}
	return l
}

// Logger returns one by its name below the root; empty is the root.
func (l *Loggers) Logger(name string) hclog.Logger {
	if name == "" {
		return l.byName[l.root]
	}
	return l.byName[l.root+"."+name]
}

var levelToPB = map[hclog.Level]pb.LogLevel{
	hclog.Trace: pb.LogLevel_LOG_LEVEL_TRACE, hclog.Debug: pb.LogLevel_LOG_LEVEL_DEBUG, hclog.Info: pb.LogLevel_LOG_LEVEL_INFO,
	hclog.Warn: pb.LogLevel_LOG_LEVEL_WARN, hclog.Error: pb.LogLevel_LOG_LEVEL_ERROR, hclog.Off: pb.LogLevel_LOG_LEVEL_OFF,
}

func (l *Loggers) levels() map[string]pb.LogLevel {
	levels := make(map[string]pb.LogLevel, len(l.byName))
	for name, logger := range l.byName {
		levels[name] = levelToPB[logger.GetLevel()]
	}
	return levels
}

// set changes the level of one logger, or of all.
func (l *Loggers) set(name string, to pb.LogLevel) error {
	for level, wire := range levelToPB {
		if wire != to {
			continue
		}
		if name != "" && l.byName[name] == nil {
			return &listeners.Violation{Field: "logger", Message: fmt.Sprintf("there is no logger %.80q: it is one of %v", name, slices.Sorted(maps.Keys(l.byName)))}
		}
		for have, logger := range l.byName {
			if name == "" || name == have {
				logger.SetLevel(level)
			}
		}
		return nil
	}
	return &listeners.Violation{Field: "level", Message: "must be trace, debug, info, warn, error or off"}
}
