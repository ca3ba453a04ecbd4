"""The module select, on sockets of the daemon: select alone."""

import os
from errno import EBADF
from select import error  # noqa: F401

from . import api
from .client import client
from .socket import socket


def select(rlist, wlist, xlist, timeout=None):
    """Waits until some of three lists can be read or accepted on, written to, or
    have an error, and returns those. When the time has run out, all are empty.

    What has fileno() may be in the lists, and numbers: of the daemon's
    descriptors, not of this process's."""
    lists = [list(rlist), list(wlist), list(xlist)]
    names = [[_name(x) for x in each] for each in lists]
    request = api.PollRequest(readable=names[0], writable=names[1], exceptional=names[2])
    if timeout is not None:
        if timeout < 0:
            raise ValueError("timeout must be non-negative")
        request.timeout.FromNanoseconds(int(timeout * 1e9))
    ready = client().call("Poll", request)
    return tuple(
        [x for x, name in zip(each, theirs) if name in told]
        for each, theirs, told in zip(lists, names, map(set, (ready.readable, ready.writable, ready.exceptional)))
    )


def _name(x):
    if isinstance(x, socket):
        if x.fileno() < 0:
            raise ValueError("file descriptor cannot be a negative integer (-1)")
        return x.name
    fd = x if isinstance(x, int) else x.fileno()
    name = client().name_of(fd)
    if not name:
        raise OSError(EBADF, "descriptor %d: %s of this program in the daemon" % (fd, os.strerror(EBADF)))
    return name
