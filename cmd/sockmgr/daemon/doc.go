// Package daemon puts the floors together: it reads the configuration, builds
// manager and control plane, tells the world that it is ready, and ends all of
// it in order.
package daemon
