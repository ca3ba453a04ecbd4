package metrics

import "github.com/prometheus/client_golang/prometheus"

// A family is all series of one name.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// one makes its only series, or that of its labels.
func (f family) one(value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...) // panics when labels and name do not fit: tests see that
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sockmgr_"+name, help, labels, nil)
}

func counter(name, help string, labels ...string) family {
	return family{desc(name, help, labels...), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) family {
	return family{desc(name, help, labels...), prometheus.GaugeValue}
}

// Names follow the conventions of Prometheus: base units, _total for what only
// grows. They are an interface: alerts are written against them.
var (
	buildInfo = gauge("build_info", "Which sockmgr this is; the value is 1.", "version", "commit")

	// Of all loops together, if there are several.
	loopCount       = gauge("loops", "Event loops.")
	loopConnections = gauge("loop_connections", "Connections of listeners that a loop serves.", "loop")
	loopTurns       = counter("loop_turns_total", "Turns of the event loop.")
	loopEvents      = counter("loop_events_total", "Readiness events that the loop handled.")
	loopBusy        = counter("loop_busy_seconds_total", "Time that the loop did not wait; its rate is the busy share.")
	loopStalls      = counter("loop_stalls_total", "Turns longer than 5 ms, in which every connection waited.")
	loopDescriptors = gauge("loop_descriptors", "Descriptors in the loop.")
	loopTimers      = gauge("loop_timers", "Timers that are set.")
	loopCommands    = gauge("loop_pending_commands", "Commands that wait for the loop.")
	loopTurnTime    = desc("loop_turn_duration_seconds", "Time of one turn, from the end of one wait to the beginning of the next.")
	loopLatency     = desc("loop_command_latency_seconds", "Time from posting a command to the loop to its run.")
	loopPerTurn     = desc("loop_events_per_turn", "Events of one turn, of turns that had any.")

	networkOverflows = counter("network_listen_overflows_total", "Connections dropped in the network namespace because an accept queue was full.")
	networkDrops     = counter("network_listen_drops_total", "Connections dropped at listening sockets of the network namespace, for any reason.")
	networkCookies   = counter("network_syn_cookies_sent_total", "SYN cookies sent in the network namespace.")
	networkSynQueue  = counter("network_syn_queue_drops_total", "Requests dropped in the network namespace because a SYN queue was full.")
	networkUDPIn     = counter("network_udp_receive_buffer_errors_total", "Datagrams lost in the network namespace because a receive buffer was full.")
	networkUDPOut    = counter("network_udp_send_buffer_errors_total", "Datagrams not sent in the network namespace because a send buffer was full.")
	networkRetrans   = counter("network_retransmitted_segments_total", "TCP segments retransmitted in the network namespace.")

	listenersNow      = gauge("listeners", "Listeners by state.", "state")
	listenersUntimed  = gauge("listeners_without_histograms", "Listeners that had connections and whose histograms are left out of this scrape, so that it stays affordable.")
	listenerAccepted  = counter("listener_accepted_total", "Connections accepted.", "listener")
	listenerRejected  = counter("listener_rejected_total", "Connections closed and datagrams dropped without an answer.", "listener", "reason")
	listenerClosed    = counter("listener_closed_total", "Connections closed, by what ended them.", "listener", "reason")
	listenerErrors    = counter("listener_errors_total", "System calls that failed.", "listener", "call", "errno")
	listenerActive    = gauge("listener_active_connections", "Connections open now.", "listener")
	listenerPeak      = gauge("listener_active_connections_peak", "Most connections open at once since the daemon began or peaks were reset.", "listener")
	listenerReceived  = counter("listener_received_bytes_total", "Bytes received.", "listener")
	listenerSent      = counter("listener_sent_bytes_total", "Bytes sent.", "listener")
	listenerGramsIn   = counter("listener_received_datagrams_total", "Datagrams received.", "listener")
	listenerGramsOut  = counter("listener_sent_datagrams_total", "Datagrams sent.", "listener")
	listenerDrops     = counter("listener_drops_total", "Connections and datagrams the kernel dropped at the sockets that are bound now.", "listener")
	listenerQueue     = gauge("listener_accept_queue", "Connections that wait in the kernel to be accepted.", "listener")
	listenerLimit     = gauge("listener_accept_queue_limit", "Most connections that may wait: the backlog in force.", "listener")
	listenerQueuePeak = gauge("listener_accept_queue_peak", "Most connections that waited, as seen every two seconds.", "listener")
	listenerAccept    = desc("listener_accept_delay_seconds", "Time from a connection being complete to its accept.", "listener")
	listenerFirstByte = desc("listener_first_byte_delay_seconds", "Time from accept to the first byte received.", "listener")
	listenerDuration  = desc("listener_connection_duration_seconds", "Life of connections that have ended.", "listener")
	listenerRTT       = desc("listener_round_trip_seconds", "Smoothed round trip of TCP connections when they ended.", "listener")
)
