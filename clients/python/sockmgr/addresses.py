"""Addresses: Python's tuples and paths, and the daemon's URIs."""

import errno
import os
import socket as _std
from socket import AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM

from . import api

# The network and the scheme of each kind of socket.
NETWORKS = {
    (AF_INET, SOCK_STREAM): (api.NETWORK_TCP, "tcp"),
    (AF_INET, SOCK_DGRAM): (api.NETWORK_UDP, "udp"),
    (AF_INET6, SOCK_STREAM): (api.NETWORK_TCP, "tcp"),
    (AF_INET6, SOCK_DGRAM): (api.NETWORK_UDP, "udp"),
    (AF_UNIX, SOCK_STREAM): (api.NETWORK_UNIX, "unix"),
    (AF_UNIX, SOCK_DGRAM): (api.NETWORK_UNIXGRAM, "unixgram"),
    (AF_UNIX, SOCK_SEQPACKET): (api.NETWORK_UNIXPACKET, "unixpacket"),
}

_ANY = {AF_INET: "0.0.0.0", AF_INET6: "::"}


def kind(address):
    """The family and the type of a socket with an address that the daemon tells."""
    for (family, type), (network, _) in NETWORKS.items():
        if network == address.network and (family == AF_INET6) == (":" in address.ip):
            return family, type
    raise OSError(errno.EAFNOSUPPORT, "%s is of no kind that Python knows" % address.uri)


def uri(family, type, address):
    """The URI of an address. A name is left to the daemon to resolve."""
    scheme = NETWORKS[family, type][1]
    if family == AF_UNIX:
        return scheme + "://" + _path(address)
    if not isinstance(address, tuple) or not (len(address) == 2 or family == AF_INET6 and 2 < len(address) <= 4):
        raise TypeError("an address of %s is a tuple (host, port%s), not %r" % (family.name, "[, flowinfo, scope]" * (family == AF_INET6), address))
    host, port = address[:2]
    if not isinstance(host, (str, bytes, bytearray)) or not isinstance(port, int):
        raise TypeError("an address is a host and a number, not %r" % (address,))
    if not 0 <= port <= 0xFFFF:
        raise OverflowError("port must be 0-65535.")
    host = host if isinstance(host, str) else bytes(host).decode("idna")
    if host == "<broadcast>":
        host = "255.255.255.255"
    host = host or _ANY[family]
    if ":" in host:
        scope = "%25" + str(address[3]) if len(address) == 4 and address[3] and "%" not in host else ""
        return "%s://[%s%s]:%d" % (scheme, host.replace("%", "%25"), scope, port)
    if not _numeric(host):
        scheme += "6" if family == AF_INET6 else "4"  # as getaddrinfo would look for it
        host = host.encode("idna").decode("ascii")
    return "%s://%s:%d" % (scheme, host, port)


def _numeric(host):
    try:
        return bool(_std.inet_pton(AF_INET, host))
    except OSError:
        return False


def _path(path):
    text = os.fsdecode(path)
    if text.startswith("\0"):
        return "@" + text[1:]
    return os.path.abspath(text) if text else ""  # the daemon is in another directory


def python(family, address):
    """The tuple or path of an address that the daemon tells."""
    if family == AF_UNIX:
        return b"\0" + os.fsencode(address.path[1:]) if address.path.startswith("@") else address.path
    if family == AF_INET:
        return address.ip or _ANY[family], address.port
    ip = address.ip or _ANY[family]
    scope = 0
    if address.zone:
        scope = int(address.zone) if address.zone.isdigit() else _std.if_nametoindex(address.zone)
        ip = ip.partition("%")[0]
    return ip if ":" in ip else "::ffff:" + ip, address.port, 0, scope
