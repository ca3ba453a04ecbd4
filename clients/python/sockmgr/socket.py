"""The module socket, on sockets that live in the daemon.

What is not here comes from the standard library's: constants, getaddrinfo,
htons, and so on. A name is resolved where the daemon is.
"""

import _socket  # for create_server
import os
import socket as _std
import struct
import types
from errno import EALREADY, EBADF, EINPROGRESS, EISCONN, ENOTCONN, EOPNOTSUPP
from socket import *  # noqa: F403

from . import addresses, api, options
from .client import client

_MOST = 1 << 20  # bytes of one call


def __getattr__(name):
    return getattr(_std, name)


def _no(what):
    def refuse(*_args, **_kwargs):
        raise OSError(EOPNOTSUPP, what + ": the descriptor is in the daemon")

    return refuse


class socket:
    """A socket of the daemon, with the methods of socket.socket.

    fileno is the number of the descriptor in the daemon: it is good for
    sockmgr.select, and for socket(fileno=...), which takes a socket of the
    same user by it; not for os.read.
    """

    name, _fd = "", -1  # closed, or not made yet
    _timeout = None
    _io_refs, _closed = 0, False
    _connecting = None  # the request that waits for its outcome
    _options = None  # those that were set, of one that was made here

    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        if fileno is not None:
            self._adopt(_find(fileno))
            return
        flags = max(type, 0) & (_std.SOCK_NONBLOCK | _std.SOCK_CLOEXEC)
        self.family = _std.AddressFamily(_std.AF_INET if family == -1 else family)
        self.type = _std.SocketKind(_std.SOCK_STREAM if type == -1 else type & ~flags)
        self.proto = max(proto, 0)
        self._options = {}
        self._create({_std.AF_INET: 4}.get(self.family, 0))  # as Linux has it, IPv6 serves IPv4 too
        self.settimeout(0.0 if flags & _std.SOCK_NONBLOCK else _std.getdefaulttimeout())

    def _create(self, ip_version):
        network, _ = addresses.NETWORKS.get((self.family, self.type), (0, ""))
        request = api.CreateSocketRequest(network=network, ip_version=ip_version)
        request.idle_timeout.FromNanoseconds(int(client().idle_timeout * 1e9))
        self._own(client().call("CreateSocket", request).socket)

    def _own(self, told):
        self.name, self._fd = told.name, told.fd
        client().keep(self)

    def _adopt(self, told, family=None, type=None):
        """Makes this the socket that the daemon tells of."""
        known = addresses.kind(told.local)
        self.family, self.type, self.proto = _std.AddressFamily(family or known[0]), _std.SocketKind(type or known[1]), 0
        self._own(told)
        if _std.getdefaulttimeout() is not None:
            self.settimeout(_std.getdefaulttimeout())
        return self

    def _call(self, method, request):
        if self._fd < 0:
            raise OSError(EBADF, os.strerror(EBADF))
        request.name = self.name
        return client().call(method, request)

    def _uri(self, address):
        return addresses.uri(self.family, self.type, address)

    # Server side.

    def bind(self, address):
        self._call("Bind", api.BindRequest(address=self._uri(address)))

    def listen(self, backlog=min(_std.SOMAXCONN, 128)):
        self._call("Listen", api.ListenRequest(backlog=max(backlog, 1)))

    def accept(self):
        told = self._call("Accept", api.AcceptRequest()).socket
        return _made(told, self.family, self.type), addresses.python(self.family, told.remote)

    # Client side.

    def connect(self, address):
        self._connecting = api.ConnectRequest(address=self._uri(address))
        self._call("Connect", self._connecting)
        self._connecting = None

    def connect_ex(self, address):
        self._connecting = api.ConnectRequest(address=self._uri(address), return_errno=True)
        try:
            number = self._call("Connect", self._connecting).errno_number
        except OSError as e:
            if e.errno is None or e.errno < 0:
                raise
            return e.errno
        if number not in (EINPROGRESS, EALREADY):
            self._connecting = None
        return number

    # Bytes.

    def send(self, data, flags=0):
        _flags(flags)
        payload = memoryview(data).cast("B")
        if self.type == _std.SOCK_STREAM:
            payload = payload[:_MOST]
        return self._call("Send", api.SendRequest(payload=bytes(payload))).sent

    def sendall(self, data, flags=0):
        _flags(flags)
        payload = memoryview(data).cast("B")
        while True:
            self._call("Send", api.SendRequest(payload=bytes(payload[:_MOST]), all=True))
            payload = payload[_MOST:]
            if not payload:
                return

    def sendto(self, data, *flags_address):
        *flags, address = flags_address
        _flags(*flags)
        return self._call("SendTo", api.SendToRequest(payload=bytes(data), address=self._uri(address))).sent

    def recv(self, bufsize, flags=0):
        peek = _flags(flags, _std.MSG_PEEK | _std.MSG_WAITALL) & _std.MSG_PEEK
        _size(bufsize)
        if bufsize == 0:
            return b""
        got = self._call("Recv", api.RecvRequest(max_bytes=min(bufsize, _MOST), peek=bool(peek))).payload
        while flags & _std.MSG_WAITALL and not peek and 0 < len(got) < bufsize:
            more = self._call("Recv", api.RecvRequest(max_bytes=min(bufsize - len(got), _MOST))).payload
            if not more:
                break
            got += more
        return got

    def recvfrom(self, bufsize, flags=0):
        _flags(flags)
        _size(bufsize)
        d = self._call("RecvFrom", api.RecvFromRequest(max_bytes=min(max(bufsize, 1), _MOST))).datagrams[0]
        address = addresses.python(self.family, d.remote) if d.HasField("remote") else None
        return d.payload[:bufsize], address

    def recv_into(self, buffer, nbytes=0, flags=0):
        view = memoryview(buffer).cast("B")
        got = self.recv(nbytes or len(view), flags)
        view[: len(got)] = got
        return len(got)

    def recvfrom_into(self, buffer, nbytes=0, flags=0):
        view = memoryview(buffer).cast("B")
        got, address = self.recvfrom(nbytes or len(view), flags)
        view[: len(got)] = got
        return len(got), address

    # What the standard library makes of recv_into and send.
    makefile = _std.socket.makefile
    sendfile = _std.socket._sendfile_use_send
    _check_sendfile_params = _std.socket._check_sendfile_params

    # Waiting.

    def settimeout(self, value):
        request = api.SetTimeoutRequest()
        if value is not None:
            value = float(value)
            if not 0 <= value < 1e9:
                raise ValueError("Timeout value out of range")
            request.timeout.FromNanoseconds(max(round(value * 1e9), value > 0))
        if value is not None or self._timeout is not None:
            self._call("SetTimeout", request)
        self._timeout = value

    def gettimeout(self):
        return self._timeout

    timeout = property(gettimeout)

    def setblocking(self, flag):
        self.settimeout(None if flag else 0.0)

    def getblocking(self):
        return self._timeout != 0

    # Names and options.

    def _told(self):
        return self._call("GetSocket", api.GetSocketRequest()).socket

    def fileno(self):
        return self._fd

    def getsockname(self):
        return addresses.python(self.family, self._told().local)

    def getpeername(self):
        told = self._told()
        if not told.HasField("remote") and (self.family != _std.AF_UNIX or told.role == api.Socket.ROLE_CREATED):
            raise OSError(ENOTCONN, os.strerror(ENOTCONN))
        return addresses.python(self.family, told.remote)

    def setsockopt(self, level, optname, value, optlen=None):
        if value is None:
            value = bytes(optlen)
        if (level, optname) == (_std.IPPROTO_IPV6, _std.IPV6_V6ONLY):
            return self._only6(value)
        if self._fd < 0:
            raise OSError(EBADF, os.strerror(EBADF))
        options.set(client(), self.name, level, optname, value)
        if self._options is not None:
            self._options[level, optname] = value

    def _only6(self, value):
        """The daemon decides it when it makes a socket: so it makes another."""
        if self.family != _std.AF_INET6:
            raise OSError(EOPNOTSUPP, os.strerror(EOPNOTSUPP))
        client().close(self.name)
        self._create(6 if value not in (0, bytes(4)) else 0)
        for (level, optname), v in self._options.items():
            options.set(client(), self.name, level, optname, v)
        timeout, self._timeout = self._timeout, None
        self.settimeout(timeout)

    def getsockopt(self, level, optname, buflen=0):
        if self._fd < 0:
            raise OSError(EBADF, os.strerror(EBADF))
        known = {_std.SO_TYPE: self.type, _std.SO_DOMAIN: self.family, _std.SO_PROTOCOL: self.proto}
        if level == _std.SOL_SOCKET and optname == _std.SO_ERROR:
            value = self._error()
        elif level == _std.SOL_SOCKET and optname in known:
            value = int(known[optname])
        else:
            return options.get(client(), self.name, level, optname, buflen)
        return struct.pack("@i", value)[:buflen] if buflen else value

    def _error(self):
        """What came of a connect that did not wait: who connects again is told."""
        if self._connecting is None:
            return 0
        self._connecting.return_errno = True
        number = self._call("Connect", self._connecting).errno_number
        if number in (EINPROGRESS, EALREADY):
            return 0
        self._connecting = None
        return 0 if number == EISCONN else number

    def get_inheritable(self):
        return False

    def set_inheritable(self, inheritable):
        if inheritable:
            _no("set_inheritable")()

    dup, share, sendmsg, recvmsg = map(_no, ("dup", "share", "sendmsg", "recvmsg"))

    # The end.

    def shutdown(self, how):
        if how not in (_std.SHUT_RD, _std.SHUT_WR, _std.SHUT_RDWR):
            raise OSError(22, "Invalid argument")
        self._call("Shutdown", api.ShutdownRequest(read=how != _std.SHUT_WR, write=how != _std.SHUT_RD))

    def detach(self):
        """Leaves the socket to who takes it by its descriptor, with
        socket(fileno=...), before its idle timeout."""
        fd, self._fd, self.name, self._closed = self._fd, -1, "", True
        return fd

    def close(self):
        self._closed = True
        if self._io_refs <= 0:
            self._real_close()

    def _decref_socketios(self):  # of makefile
        self._io_refs -= self._io_refs > 0
        if self._closed:
            self.close()

    def _real_close(self):
        self._fd = -1
        if self.name:
            client().close(self.name)
            self.name = ""  # not before: this process may be ending meanwhile

    def __enter__(self):
        return self

    def __exit__(self, *args):
        if not self._closed:
            self.close()

    def __del__(self):
        if self.name:
            client().forget(self.name)

    def __repr__(self):
        return "<sockmgr.socket fd=%d%s, name=%r, family=%s, type=%s>" % (
            self._fd, " [closed]" * self._closed, self.name, getattr(self, "family", "?"), getattr(self, "type", "?"))

    def __getstate__(self):
        raise TypeError("cannot pickle a socket")


SocketType = socket


def _made(told, family=None, type=None):
    """A socket that is there already."""
    return socket.__new__(socket)._adopt(told, family, type)


def _find(fd):
    """The socket at a descriptor of the daemon."""
    request = api.ListSocketsRequest(filter="fd = %d" % fd)
    for told in client().call("ListSockets", request).sockets:
        return told
    raise OSError(EBADF, os.strerror(EBADF))


def _flags(flags=0, known=0):
    if flags & ~(known | _std.MSG_NOSIGNAL):
        raise OSError(EOPNOTSUPP, "flags %#x are not supported" % flags)
    return flags


def _size(n):
    if n < 0:
        raise ValueError("negative buffersize in recv")


def _here(function):
    """A function of the standard library, on sockets of this module."""
    mine = types.FunctionType(function.__code__, globals(), function.__name__, function.__defaults__, function.__closure__)
    mine.__kwdefaults__, mine.__doc__ = function.__kwdefaults__, function.__doc__
    return mine


_GLOBAL_DEFAULT_TIMEOUT = _std._GLOBAL_DEFAULT_TIMEOUT
create_connection, create_server = _here(_std.create_connection), _here(_std.create_server)
socketpair, fromfd, send_fds, recv_fds = map(_no, ("socketpair", "fromfd", "send_fds", "recv_fds"))
