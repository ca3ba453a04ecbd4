"""Sockets that live in the sockmgr daemon, with the interface of Python's own.

Change the import, and what is written for sockets runs on those of the daemon:

    from sockmgr import socket, select       # import socket, select
    from sockmgr import socketserver         # import socketserver
    from sockmgr.http import server          # from http import server

The modules that are written on sockets are sockmgr.std.load("xmlrpc.server").
A listener of the daemon with the remote handler is sockmgr.listener("web").
"""

from .client import configure
from .errors import Unavailable
from .remote import listener

__all__ = ["configure", "listener", "Unavailable"]
