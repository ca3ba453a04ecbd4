// Package manager keeps the set of named listeners: what is wanted of them, in
// a store that survives the daemon, and what is, on the loop.
//
// Every change has one shape:
//
//	check -> lock the name -> prepare what may block or fail (bind)
//	      -> on the loop: attach          \  the other way round, where
//	      -> save; if that fails: undo    /  something is let go
//	      -> tell the watchers -> answer
//
// so a change that fails has changed nothing, and nothing old is closed before
// what replaces it listens. Changes of different listeners run side by side and
// share their fsync.
//
// All methods of a [Manager] may be called from any goroutine but the loop's.
package manager
