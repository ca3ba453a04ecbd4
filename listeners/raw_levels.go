package listeners

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A rawLevel is a level of setsockopt(2) that the daemon's sockets have.
type rawLevel struct {
	name     string // in the one form of a name
	also     string // what else it may be called
	number   int
	networks NetworkSet
	family   int            // AF_INET6: only of IPv6 sockets
	names    map[string]int // of the kernel
	refused  map[int]string // why these are never set or read
}

// Why options are refused. Each breaks what the daemon relies on, or harms
// more than the one socket.
const (
	refuseFilter  = "filters are programs at an address, and pausing a listener uses them"
	refuseRepair  = "it takes the connection out of the kernel's hands"
	refuseULP     = "the daemon could not go on reading and writing the socket"
	refuseSecret  = "it is a key, which would be saved and shown in clear"
	refuseErrors  = "it fills the error queue, which the daemon does not read: the socket would stay ready for ever"
	refuseControl = "it adds control messages that the daemon does not read, and that leave no room for those it needs"
	refuseAddress = "it is part of the address: say so in spec.listen"
	refuseRead    = "reading it takes it away"
	refuseBlock   = "the daemon's sockets never block; see idle_timeout"
	refuseIPsec   = "IPsec policies are for who sets up the host"
	refuseConnect = "it is for sockets that connect"
	refuseMemory  = "it is given an address of memory"
	refuseDaemon  = "the daemon relies on the value that it has set"
	refuseHost    = "it is of the host's packet filter, not of this socket"
)

// rawLevels are the levels, in the order that messages name them.
var rawLevels = []*rawLevel{
	{name: "SOL_SOCKET", number: unix.SOL_SOCKET, networks: OnAll, names: socketNames, refused: refusedSocket},
	{name: "IPPROTO_IP", also: "SOL_IP", number: unix.IPPROTO_IP, networks: OnIP, names: ipNames, refused: refusedIP},
	{name: "IPPROTO_TCP", also: "SOL_TCP", number: unix.IPPROTO_TCP, networks: OnTCP, names: tcpNames, refused: refusedTCP},
	{name: "IPPROTO_UDP", also: "SOL_UDP", number: unix.IPPROTO_UDP, networks: OnUDP, names: udpNames, refused: refusedUDP},
	{name: "IPPROTO_IPV6", also: "SOL_IPV6", number: unix.IPPROTO_IPV6, networks: OnIP, family: unix.AF_INET6, names: ip6Names, refused: refusedIP6},
}

// levelOf finds a level by a name or its number; nil when there is none.
func levelOf(word string) *rawLevel {
	for _, l := range rawLevels {
		if word == l.name || word == l.also && word != "" || word == strconv.Itoa(l.number) {
			return l
		}
	}
	return nil
}

func levelWords() (words []string) {
	for _, l := range rawLevels {
		words = append(words, l.name)
		if l.also != "" {
			words = append(words, l.also)
		}
	}
	return words
}

func levelNames() string {
	texts := make([]string, 0, len(rawLevels))
	for _, l := range rawLevels {
		texts = append(texts, fmt.Sprintf("%s (%d)", l.name, l.number))
	}
	return strings.Join(texts, ", ")
}

func (l *rawLevel) sorted() []string { return slices.Sorted(maps.Keys(l.names)) }

// word is the kernel's name of an option, or its number where sockmgr has no
// name for it.
func (l *rawLevel) word(number int) (word string, known bool) {
	for _, name := range l.sorted() {
		if l.names[name] == number {
			return name, true
		}
	}
	return strconv.Itoa(number), false
}

func (l *rawLevel) refusal(number int) string {
	// What iptables, arptables, ebtables and IPVS are set up with goes through
	// any IPv4 socket, from IPT_BASE_CTL on.
	if why, ok := l.refused[number]; ok || l.number != unix.IPPROTO_IP || number < 64 {
		return why
	}
	return refuseHost
}

// nearest is the word that was probably meant, or nothing.
func nearest(word string, words []string) (best string) {
	least := 1 + len(word)/4
	for _, w := range words {
		if d := distance(strings.ToUpper(word), w); len(word) <= 64 && d <= least {
			best, least = w, d-1
		}
	}
	return best
}
