package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/sockmgr/sockmgr/internal/control"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
	"github.com/sockmgr/sockmgr/manager/metrics"
	"github.com/sockmgr/sockmgr/mux"
)

// config is what the daemon was told. Each field is a flag, an environment
// variable and a key of the file: flag > environment > file > default.
type config struct {
	Control   []string `yaml:"control"`
	State     string   `yaml:"state"`
	Poller    string   `yaml:"poller"`
	Loops     int      `yaml:"loops"`
	LogLevel  string   `yaml:"log-level"`
	LogFormat string   `yaml:"log-format"`
	Metrics   string   `yaml:"metrics"`
	Buffer    string   `yaml:"write-buffer-bytes"`
	ExecAllow programs `yaml:"exec-allow"`

	ControlGroup     string `yaml:"control-group"`
	TLSCert          string `yaml:"control-tls-cert"`
	TLSKey           string `yaml:"control-tls-key"`
	TLSClientCA      string `yaml:"control-tls-client-ca"`
	InsecureLoopback bool   `yaml:"insecure-loopback"`
	AllowMetadata    bool   `yaml:"allow-metadata"`

	writeBuffer int64 // of Buffer

	// Access is a key of the file only: see access.go.
	Access []access.Rule `yaml:"access"`
	rules  *access.Rules
}

// settings is the one table of them.
var settings = []struct {
	name, usage string
	field       func(*config) any // *string, *[]string, *programs, *int or *bool
}{
	{"control", "`ADDRESS` of the gRPC API, unix:///PATH, or tcp://HOST:PORT with TLS; repeatable", func(c *config) any { return &c.Control }},
	{"control-group", "`GROUP`, a name or a number, that may open the control socket beside its owner; access says what its users may do", func(c *config) any { return &c.ControlGroup }},
	{"control-tls-cert", "`FILE` with the certificate chain of TCP control addresses; it is read again when it changes, as are the next two", func(c *config) any { return &c.TLSCert }},
	{"control-tls-key", "`FILE` with its key; in the file of the certificate when not given", func(c *config) any { return &c.TLSKey }},
	{"control-tls-client-ca", "`FILE` with the CA that client certificates must chain to", func(c *config) any { return &c.TLSClientCA }},
	{"insecure-loopback", "let TCP control addresses of this host be without TLS", func(c *config) any { return &c.InsecureLoopback }},
	{"state", "`DIR` that keeps what is wanted, or memory", func(c *config) any { return &c.State }},
	{"poller", "`KIND` of kernel interface that the loop waits with: epoll, poll or select", func(c *config) any { return &c.Poller }},
	{"loops", "`NUMBER` of event loops, each with a thread and a poller of its own, that connections are shared out to", func(c *config) any { return &c.Loops }},
	{"log-level", "`LEVEL` of the log: trace, debug, info, warn, error or off", func(c *config) any { return &c.LogLevel }},
	{"log-format", "`FORMAT` of the log: text or json", func(c *config) any { return &c.LogFormat }},
	{"exec-allow", "`COMMAND` that the exec handler may run: an absolute path and the arguments, of which ... as the last lets the API add more; repeatable, none unless named", func(c *config) any { return &c.ExecAllow }},
	{"allow-metadata", "let forwards and sockets connect to addresses of cloud metadata, such as 169.254.169.254", func(c *config) any { return &c.AllowMetadata }},
	{"write-buffer-bytes", "`SIZE`, such as 64MiB, of what is kept for all peers together that do not read; beyond it those that take nothing for 5 s are reset; 0 is no limit", func(c *config) any { return &c.Buffer }},
	{"metrics", "`ADDRESS` on which to show metrics to Prometheus, such as 127.0.0.1:9464; loopback only, and off when empty", func(c *config) any { return &c.Metrics }},
}

// writeBuffer is the option that knows how a size is written.
const writeBuffer = "listener_write_buffer_bytes"

func variable(name string) string {
	return "SOCKMGR_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// errHelp and errVersion are asked for, not gone wrong.
var errVersion = errors.New("version asked for")

// readConfig reads flags, environment and file.
func readConfig(args []string, getenv func(string) string, out io.Writer) (config, error) {
	c := config{Control: []string{control.Address(getenv, os.Geteuid())}, State: defaultState(getenv), Poller: "epoll", Loops: 1, LogLevel: "info", LogFormat: "text", Buffer: "256MiB"}
	var given config
	flags := pflag.NewFlagSet("sockmgr", pflag.ContinueOnError)
	flags.SetOutput(out)
	flags.SortFlags = false
	for _, s := range settings {
		usage := fmt.Sprintf("%s ($%s)", s.usage, variable(s.name))
		switch def := s.field(&c).(type) {
		case *[]string:
			flags.StringArrayVar(s.field(&given).(*[]string), s.name, *def, usage)
		case *programs:
			flags.Var(s.field(&given).(*programs), s.name, usage)
		case *string:
			flags.StringVar(s.field(&given).(*string), s.name, *def, usage)
		case *int:
			flags.IntVar(s.field(&given).(*int), s.name, *def, usage)
		case *bool:
			flags.BoolVar(s.field(&given).(*bool), s.name, *def, usage)
		}
	}
	file := flags.String("config", "", "YAML `FILE` with the flags' names as keys ($SOCKMGR_CONFIG)")
	version := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		_, _ = fmt.Fprintf(out, "sockmgr keeps listening sockets under a live gRPC API; sockctl is its client.\n\nUsage: sockmgr [flags]\n\n%s", flags.FlagUsages())
	}
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if *version {
		return c, errVersion
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("sockmgr takes no arguments, and was given %q: listeners are made with sockctl", flags.Args())
	}
	if *file == "" {
		*file = getenv("SOCKMGR_CONFIG")
	}
	if err := c.readFile(*file); err != nil {
		return c, err
	}
	for _, s := range settings {
		if err := c.take(s.field, getenv(variable(s.name)), given, flags.Changed(s.name)); err != nil {
			return c, fmt.Errorf("$%s: %w", variable(s.name), err)
		}
	}
	return c, c.check()
}

// take lets the environment, and then the flag, speak.
func (c *config) take(field func(*config) any, env string, given config, isGiven bool) error {
	switch f := field(c).(type) {
	case *[]string:
		if env != "" {
			*f = strings.Split(env, ",")
		}
		if isGiven {
			*f = *field(&given).(*[]string)
		}
	case *programs:
		if env != "" {
			*f = nil
			for line := range strings.SplitSeq(env, ",") {
				if err := f.Set(line); err != nil {
					return err
				}
			}
		}
		if isGiven {
			*f = *field(&given).(*programs)
		}
	case *string:
		if env != "" {
			*f = env
		}
		if isGiven {
			*f = *field(&given).(*string)
		}
	case *int:
		if env != "" {
			n, err := strconv.Atoi(env)
			if err != nil {
				return fmt.Errorf("%q is not a number", env)
			}
			*f = n
		}
		if isGiven {
			*f = *field(&given).(*int)
		}
	case *bool:
		if env != "" {
			on, err := strconv.ParseBool(env)
			if err != nil {
				return fmt.Errorf("%q is neither true nor false", env)
			}
			*f = on
		}
		if isGiven {
			*f = *field(&given).(*bool)
		}
	}
	return nil
}

func (c *config) readFile(path string) error {
	if path == "" {
		return nil
	}
	text, trusted, err := readConfigFile(path)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	err = d.Decode(c)
	if wrong, ok := errors.AsType[*yaml.TypeError](err); ok { // it names our types
		return fmt.Errorf("config %s: %s", path, unknownKey.ReplaceAllString(strings.Join(wrong.Errors, "; "), "there is no key $1"))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("config %s: %w", path, err)
	}
	for key, given := range map[string]bool{"access": len(c.Access) > 0, "exec-allow": len(c.ExecAllow) > 0} {
		if given && trusted != nil {
			return fmt.Errorf("config %s: it has %s, and %w", path, key, trusted)
		}
	}
	return nil
}

var unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`)

func (c *config) check() error {
	var errs []error
	for i, uri := range c.Control {
		address, err := c.checkControl(uri)
		if err != nil {
			errs = append(errs, fmt.Errorf("--control %s: %w", uri, err))
		}
		c.Control[i] = address
	}
	if err := c.checkTLS(); err != nil {
		errs = append(errs, err)
	}
	if len(c.Control) == 0 {
		errs = append(errs, errors.New("--control: at least one address is needed"))
	}
	if !slices.Contains(mux.Pollers(), c.Poller) {
		errs = append(errs, fmt.Errorf("--poller %s: must be one of %s", c.Poller, strings.Join(mux.Pollers(), ", ")))
	}
	if c.Loops < 1 || c.Loops > manager.MaxLoops {
		errs = append(errs, fmt.Errorf("--loops %d: must be from 1 to %d; more than there are processors gain nothing", c.Loops, manager.MaxLoops))
	}
	if hclog.LevelFromString(c.LogLevel) == hclog.NoLevel {
		errs = append(errs, fmt.Errorf("--log-level %s: must be trace, debug, info, warn, error or off", c.LogLevel))
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		errs = append(errs, fmt.Errorf("--log-format %s: must be text or json", c.LogFormat))
	}
	if size, err := listeners.LookupOption(writeBuffer).Parse(listeners.StringValue(c.Buffer)); err != nil {
		errs = append(errs, fmt.Errorf("--write-buffer-bytes %s: %w", c.Buffer, err))
	} else {
		c.writeBuffer = size.Int()
	}
	if c.Metrics != "" {
		if _, err := metrics.CheckAddress(c.Metrics); err != nil {
			errs = append(errs, fmt.Errorf("--metrics: %w", err))
		}
	}
	rules, err := access.NewRules(uint32(os.Geteuid()), c.Access)
	if c.rules = rules; err != nil {
		errs = append(errs, err)
	}
	if _, err := groupID(c.ControlGroup); err != nil {
		errs = append(errs, fmt.Errorf("--control-group %s: %w", c.ControlGroup, err))
	}
	if c.State == "" {
		errs = append(errs, errors.New("--state: must be a directory, or memory"))
	}
	return errors.Join(errs...)
}

func defaultState(getenv func(string) string) string {
	if os.Geteuid() == 0 {
		return "/var/lib/sockmgr"
	}
	if dir := getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "sockmgr")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "sockmgr") // the default of XDG_STATE_HOME
	}
	return fmt.Sprintf("/tmp/sockmgr-%d/state", os.Geteuid())
}
