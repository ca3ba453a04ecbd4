// Package metrics shows the numbers of a manager.Manager to Prometheus.
//
// Its Server is one of its own, on a loopback address that the operator asks
// for: it knows nothing of the control plane, and neither needs the other. A
// scrape reads the manager once, in bounded turns of the loop.
package metrics
