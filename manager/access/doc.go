// Package access says who may do what.
//
// An [Identity] is who the kernel, or a certificate, says is at the other end
// of a control connection. [Rules] are what the daemon's configuration says of
// identities: each rule that fits gives a [Grant], a role and perhaps a
// [Policy] that narrows what the role is good for. A caller may do what any one
// of its grants allows. Root and the daemon's own user have a grant of
// everything; who has none may do nothing.
//
// It knows nothing of gRPC and of requests: package service says what a request
// wants, as a list of [Want].
package access
