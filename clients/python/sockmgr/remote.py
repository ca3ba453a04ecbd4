"""Connections of the daemon's listeners: those with the remote handler."""

from . import addresses, api
from .client import client
from .socket import _made


class listener:
    """The connections of a listener, in the order in which they came:

        for conn, address in sockmgr.listener("web"):
            ...

    Several clients may take them at once; each connection goes to one."""

    def __init__(self, name):
        self.name = name if name.startswith("listeners/") else "listeners/" + name
        self._timeout = None

    def accept(self):
        """The next connection, and the address of its client."""
        told = client().call("Accept", api.AcceptRequest(name=self.name), timeout=self._timeout).socket
        conn = _made(told)
        return conn, addresses.python(conn.family, told.remote)

    def __iter__(self):
        while True:
            yield self.accept()

    def settimeout(self, value):
        """How many seconds accept waits; None is for ever."""
        self._timeout = value

    def gettimeout(self):
        return self._timeout

    def getsockname(self):
        """The first of its addresses."""
        status = client().call("GetListener", api.GetListenerRequest(name=self.name)).listener.status
        return addresses.python(addresses.kind(status.bound[0])[0], status.bound[0])
