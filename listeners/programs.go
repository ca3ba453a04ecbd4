package listeners

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A Program is what the daemon's configuration lets exec run. What it does not
// say is not the API's to say, unless Arguments lets it.
type Program struct {
	Name        string            `yaml:"name"`    // by which the API calls it; empty: by the command
	Command     []string          `yaml:"command"` // the program's path, and its arguments
	Arguments   bool              `yaml:"arguments"`
	Environment map[string]string `yaml:"environment"`
	Directory   string            `yaml:"directory"`
	User        string            `yaml:"user"`
}

// anyArguments ends a command line to which the API may add.
const anyArguments = "..."

var programName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// ParseProgram reads a command line: words between spaces, of which the last may
// be "...".
func ParseProgram(line string) (*Program, error) {
	p := &Program{Command: strings.Fields(line)}
	if n := len(p.Command); n > 0 && p.Command[n-1] == anyArguments {
		p.Command, p.Arguments = p.Command[:n-1], true
	}
	return p, p.Validate()
}

// Validate looks at no file.
func (p *Program) Validate() error {
	if p.Name != "" && !programName.MatchString(p.Name) {
		return fmt.Errorf("%.80q is not the name of a program: at most 63 of a-z, 0-9, '.', '_' and '-'", p.Name)
	}
	if len(p.Command) == 0 || !path.IsAbs(p.Command[0]) {
		return fmt.Errorf("%.80q must begin with the absolute path of a program, such as /usr/bin/cat", p.String())
	}
	e := Exec{Command: p.Command, Environment: p.Environment, Directory: p.Directory, User: p.User}
	for _, v := range Violations(e.Validate()) {
		return errors.New(strings.TrimPrefix(v.Field, "spec.handler.exec.") + ": " + v.Message)
	}
	return nil
}

// String is what the API calls it.
func (p *Program) String() string {
	text := p.Name
	if text == "" {
		text = strings.Join(p.Command, " ")
	}
	if p.Arguments {
		text += " " + anyArguments
	}
	return text
}

// Programs are all that exec may run.
type Programs []*Program

// Resolve returns what is to be run for e, or why that is not allowed.
func (all Programs) Resolve(e *Exec) (*Exec, error) {
	for _, p := range all {
		if more, ok := p.called(e.Command); ok {
			return p.with(e, more)
		}
	}
	allowed := "none is"
	if len(all) > 0 {
		texts := make([]string, len(all))
		for i, p := range all {
			texts[i] = p.String()
		}
		allowed = "allowed are " + strings.Join(texts, ", ")
	}
	field, what := "spec.handler.exec.command[0]", e.Program()
	if slices.ContainsFunc(all, func(p *Program) bool { return p.Name == what || p.Name == "" && p.Command[0] == what }) {
		field, what = "spec.handler.exec.command", fmt.Sprintf("%s with these arguments", what)
	}
	return nil, &Violation{
		Field:   field,
		Message: fmt.Sprintf("%s is not a program that the daemon may run (%s): add it to exec-allow in the daemon's configuration, and start the daemon again", what, allowed),
	}
}

// called returns what a command adds to the program's own, if it is the
// program's.
func (p *Program) called(command []string) (more []string, ok bool) {
	own := p.Command
	if p.Name != "" {
		own = []string{p.Name}
	}
	if len(command) < len(own) || !slices.Equal(command[:len(own)], own) {
		return nil, false
	}
	return command[len(own):], p.Arguments || len(command) == len(own)
}

// with is e as it is run.
func (p *Program) with(e *Exec, more []string) (*Exec, error) {
	run := *e
	run.Command, run.Environment = append(slices.Clone(p.Command), more...), map[string]string{}
	if p.Arguments { // and all else; what the configuration says counts
		maps.Copy(run.Environment, e.Environment)
	} else {
		for _, given := range []struct {
			field string
			is    bool
		}{{"environment", len(e.Environment) > 0}, {"directory", e.Directory != ""}, {"user", e.User != ""}} {
			if given.is {
				return nil, &Violation{
					Field:   "spec.handler.exec." + given.field,
					Message: fmt.Sprintf("is for the daemon's configuration to say: exec-allow has %s without arguments of others (%q)", p, anyArguments),
				}
			}
		}
	}
	maps.Copy(run.Environment, p.Environment)
	if p.Directory != "" {
		run.Directory = p.Directory
	}
	if p.User != "" {
		run.User = p.User
	}
	return &run, nil
}
