"""The module http.server, on sockets of the daemon."""

from ..std import replace

replace(__name__)
