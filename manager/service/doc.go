// Package service is the gRPC control plane over a [manager.Manager].
//
// gRPC lives here and only here. A method is convert, call, convert: wire types
// and domain types meet in the convert files, errors become a status in
// status.go, and what is alike for all methods (who calls, with what role, a
// panic, a repeated request id) is an interceptor.
package service
