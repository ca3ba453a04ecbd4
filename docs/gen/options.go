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

## Left out on purpose

What socket(7), ip(7), ipv6(7), tcp(7) and udp(7) have beyond the table, and why:

- ` + "`IPV6_V6ONLY`" + `: the address says it, and the kernel takes no change after bind. ` + "`tcp6://` and `udp6://`" + ` are IPv6 only,
  ` + "`tcp://[::]` and `udp://[::]`" + ` serve IPv4 too.
- ` + "`UDP_GRO`" + `: in use always. Datagrams that come in a row are taken as one buffer, and sent so.
- ` + "`SO_RXQ_OVFL`" + `: it adds a count of drops to each datagram. The drops of a socket are in its statistics without it.
- ` + "`IP_RECVERR`, `IPV6_RECVERR`, `SO_TIMESTAMPING`" + ` and the like fill the error queue, which the daemon does not read: the
  error of a socket, such as ECONNREFUSED, is reported without it.
- Control messages that nobody here would read: ` + "`SO_TIMESTAMP`, `IP_RECVTTL`, `IP_RECVTOS`, `TCP_INQ`, `SO_PASSSEC`" + `.
  ` + "`IP_PKTINFO`" + ` is the daemon's own, so that answers leave from the address that was asked.
- Of sockets that connect, which a listener does not: ` + "`IP_BIND_ADDRESS_NO_PORT`, `IP_LOCAL_PORT_RANGE`," + `
  ` + "`TCP_FASTOPEN_CONNECT`, `IPV6_ADDR_PREFERENCES`" + `.
- ` + "`SO_RCVTIMEO`, `SO_SNDTIMEO`" + `: no call of the daemon waits. ` + "`SO_SNDLOWAT`" + ` cannot be changed on Linux.
- ` + "`SO_BUSY_POLL_BUDGET`" + `: the kernel does not let it be read back. ` + "`SO_RESERVE_MEM`" + ` needs a memory cgroup.
- Single sources of a multicast group (` + "`MCAST_JOIN_SOURCE_GROUP`" + `) and ` + "`IPV6_JOIN_ANYCAST`" + `: whole groups only.
- ` + "`UDP_CORK`, `UDP_ENCAP`, `TCP_REPAIR`, `TCP_ULP`, `TCP_MD5SIG`, `SO_ATTACH_FILTER`" + `: they would take the data out of the
  daemon's hands, or need a secret. They are refused under any name.

What is left out and not refused can be set [as a raw option](tuning.md#options-that-the-table-lacks).
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
