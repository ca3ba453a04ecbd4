package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// optionPage is options.md.
func optionPage() string {
	var b strings.Builder
	b.WriteString(`# Options

All that can be tuned. They are given with ` + "`sockctl start --option NAME=VALUE`" + `, changed on what runs with
` + "`sockctl tune`" + `, and read back with ` + "`sockctl options NAME`" + `: see [tuning.md](tuning.md). The page is made from the table
that the daemon itself uses. ` + "`sockctl options -o wide`" + ` shows it for the host at hand, with the sysctl values there.

| option | type | default | takes effect | |
|---|---|---|---|---|
`)
	for _, o := range listeners.Options {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", o.Name, typeNames[o.Type], defaultOf(o), effects[o.Effect], o.Summary)
	}
	b.WriteString(`
How values are written:

- yes or no: ` + "`true` or `false`" + `.
- bytes: ` + "`65536`, `64KiB`, `4MiB`" + ` (1024 each), or ` + "`64kB`, `4MB`" + ` (1000 each).
- time: ` + "`30s`, `500ms`, `2m`, `1h30m`" + `; a bare number is seconds.
- ` + "`null`" + ` gives back the default. "The kernel's" is what a new socket has on that host.

When a change takes effect:

- at once: on the listener, on the connections to come and on those that are open.
- new connections: on those that are made from now on.
- new socket: not on a listener that runs. Stop it, tune it, start it.

| option | range | for | in the kernel | limited by | inherited | needs |
|---|---|---|---|---|---|---|
`)
	for _, o := range listeners.Options {
		inherited := "-"
		if o.Inherited {
			inherited = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s |\n",
			o.Name, rangeOf(o), o.Networks, orNone(o.Kernel), orNone(o.Clamp), inherited, orNone(o.Capability))
	}
	b.WriteString(`
"In the kernel" is the name in its headers; where there is none, the daemon itself does it. "Limited by" is the sysctl
that clamps the value. "Needs" is the capability that the daemon must have for it, or for some of its values. "Inherited" options pass from a listening TCP socket to what it accepts; the daemon sets all
others, and all of them on Unix sockets, on each connection itself.
`)
	return b.String()
}

var typeNames = map[listeners.Type]string{
	listeners.Bool: "yes or no", listeners.Int: "number", listeners.Bytes: "bytes", listeners.Duration: "time",
	listeners.String: "text",
}

var effects = map[listeners.Effect]string{
	listeners.Live: "at once", listeners.NewConnections: "new connections", listeners.Rebind: "new socket",
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return "`" + s + "`"
}

func defaultOf(o *listeners.Option) string {
	switch v := o.Default; v.Type() {
	case listeners.Null:
		return "the kernel's"
	case listeners.String:
		return v.String()
	default:
		return number(v.Type(), v.Int())
	}
}

func rangeOf(o *listeners.Option) string {
	least, greatest, ok := o.Range()
	switch {
	case ok:
		return number(o.Type, least) + " to " + number(o.Type, greatest)
	case o.Kernel == "TCP_CONGESTION":
		return "what `sysctl net.ipv4.tcp_available_congestion_control` says" // not what it says here
	case len(o.Choices()) > 0:
		return "`" + strings.Join(o.Choices(), "`, `") + "`"
	default:
		return "-"
	}
}

// number is n as people write it.
func number(t listeners.Type, n int64) string {
	switch t {
	case listeners.Bool:
		return fmt.Sprint(n != 0)
	case listeners.Duration:
		return shortTime(time.Duration(n))
	case listeners.Bytes:
		for _, unit := range []string{"", "KiB", "MiB", "GiB"} {
			if n == 0 || n%1024 != 0 {
				return fmt.Sprint(n) + unit
			}
			n /= 1024
		}
		return fmt.Sprint(n) + "TiB"
	default:
		return fmt.Sprint(n)
	}
}

// shortTime is 30s, 1m15s, 9h6m7s, 365d.
func shortTime(d time.Duration) string {
	if days := d / (24 * time.Hour); days > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", days)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
