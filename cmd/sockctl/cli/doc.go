// Package cli is the command line client of sockmgr: each verb is one file,
// and a run of it is a call of Run with everything it sees of the world in
// Env. It is a client like any other: it knows the API in gen and nothing of
// the daemon's packages, and builds where the daemon does not.
//
// A run goes one way:
//
//	Run -> a verb's file -> client (gRPC) -> view -> print (json, yaml, name, table, wide)
//	                                      \-> failure -> exit code and words on stderr
//
// Data goes to stdout, everything else to stderr. The exit codes are in one
// table in exit.go; how a message becomes JSON or YAML is in render.go alone.
package cli
