"""The connection to the daemon: one of each process, made by the first call."""

import atexit
import os
import queue
import threading
import time
import weakref

import grpc

from . import api, errors

_settings = {"address": None, "idle_timeout": 300.0}
_lock = threading.Lock()
_client = None


def configure(address=None, idle_timeout=None):
    """Says where the daemon is (None: $SOCKMGR_ADDR, else where a local daemon
    listens) and for how many seconds sockets outlive a program that was killed.
    It is for before the first socket."""
    if _client is not None:
        raise RuntimeError("sockmgr.configure: a socket has been made already")
    if address is not None:
        _settings["address"] = address
    if idle_timeout is not None:
        _settings["idle_timeout"] = float(idle_timeout)


def client():
    """The Client of this process."""
    global _client
    with _lock:
        if _client is None:
            _client = Client(_settings["address"] or default_address(), _settings["idle_timeout"])
    return _client


def default_address():
    """Where sockctl looks too."""
    if os.environ.get("SOCKMGR_ADDR"):
        return os.environ["SOCKMGR_ADDR"]
    if os.getuid() == 0:
        return "unix:///run/sockmgr/control.sock"
    if os.environ.get("XDG_RUNTIME_DIR"):
        return "unix://%s/sockmgr/control.sock" % os.environ["XDG_RUNTIME_DIR"]
    return "unix:///tmp/sockmgr-%d/control.sock" % os.getuid()


def _target(address):
    """Where grpc connects to, and with which credentials."""
    if address.startswith("tcp://"):
        files = [os.environ.get(name) for name in ("SOCKMGR_CA", "SOCKMGR_KEY", "SOCKMGR_CERT")]
        if not any(files) and address[6:].startswith(("127.", "[::1]:", "localhost:")):
            return address[6:], None  # the daemon's --insecure-loopback
        if not files[2]:
            raise ValueError("address %r: SOCKMGR_CERT is not set: the daemon knows its callers over TCP by their certificates" % address)
        files[1] = files[1] or files[2]
        return address[6:], grpc.ssl_channel_credentials(*(_read(name) if name else None for name in files))
    path = address[5:] if address.startswith("unix:") else address
    path = path[2:] if path.startswith("//") else path
    if not path.startswith("/"):
        raise ValueError("address %r: want unix:///path, or tcp://host:port" % address)
    return "unix:" + path, None


def _read(name):
    with open(name, "rb") as f:
        return f.read()


class _Line:
    """One connection. The daemon answers so many calls of each at once, and a
    call may wait for long: in a server with a thread for each client, most do."""

    most = 32  # the daemon's own limit is 64

    def __init__(self, target, credentials):
        # Its own connection: grpc would have channels to one place share theirs.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 4 << 20), ("grpc.enable_http_proxy", 0)]
        if credentials:
            self.channel = grpc.secure_channel(target, credentials, options=options)
        else:
            self.channel = grpc.insecure_channel(target, options=options)
        stubs = api.SocketServiceStub(self.channel), api.TuningServiceStub(self.channel), api.ListenerServiceStub(self.channel)
        self.methods = {name: method for stub in stubs for name, method in vars(stub).items()}
        self.busy = 0


class _Call:
    """One call. grpc's own locks stay locked when Ctrl-C comes in between, which
    Python tells the main thread of; so for that another thread deals with grpc."""

    def __init__(self, method, *args):
        self._method, self._args = method, args
        self._future = None
        self.done = threading.Event()
        self.response = self.error = None

    def begin(self):
        request, timeout = self._args
        try:
            self._future = self._method.future(request, timeout=timeout)
            self._future.add_done_callback(self._finish)
        except Exception as e:  # for who waits, not for this thread
            self.error = e
            self.done.set()

    def cancel(self):
        if self._future is not None:
            self._future.cancel()

    def _finish(self, future):
        try:
            self.response = future.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as e:
            self.error = e
        self._future = None
        self.done.set()


class Client:
    """Connections to the daemon, and a thread that keeps the sockets of this
    process alive and closes those that were forgotten."""

    def __init__(self, address, idle_timeout):
        self._where = _target(address)
        self.idle_timeout = idle_timeout
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._lines = []
        self._open = weakref.WeakSet()
        self._by_fd = weakref.WeakValueDictionary()
        self._closing = ""  # by the thread, now
        self._forgotten = queue.SimpleQueue()  # its put may be called by the garbage collector
        self._turns = queue.SimpleQueue()
        threading.Thread(target=self._turn, name="sockmgr-calls", daemon=True).start()
        threading.Thread(target=self._keep, name="sockmgr", daemon=True).start()
        atexit.register(self._exit)

    def call(self, method, request, timeout=None):
        """Makes a call; what the daemon refuses is an OSError."""
        if os.getpid() != self._pid:
            raise RuntimeError("sockmgr: this process was forked from one that has sockets; gRPC does not survive that: start a new one")
        line = self._take()
        call = _Call(line.methods[method], request, timeout)
        try:
            if threading.current_thread() is threading.main_thread():
                self._turns.put(call.begin)
            else:
                call.begin()
            try:
                call.done.wait()
            except BaseException:  # Ctrl-C: what it would have taken is left to others
                self._turns.put(call.cancel)
                raise
        finally:
            with self._lock:
                line.busy -= 1
        if isinstance(call.error, grpc.RpcError):
            raise errors.of(call.error) from None
        if call.error is not None:
            raise call.error
        return call.response

    def _turn(self):
        while True:
            self._turns.get()()

    def _take(self):
        """A connection that has room for a call."""
        with self._lock:
            for line in self._lines:
                if line.busy < _Line.most:
                    break
            else:
                line = _Line(*self._where)
                self._lines.append(line)
            line.busy += 1
            return line

    def keep(self, sock):
        """Keeps a socket alive for as long as this process refers to it."""
        self._open.add(sock)
        self._by_fd[sock.fileno()] = sock

    def name_of(self, fd):
        """The name of the socket of this process at a descriptor of the daemon."""
        sock = self._by_fd.get(fd)
        return sock.name if sock is not None and sock.fileno() == fd else ""

    def close(self, name):
        """Closes a socket; one that is closed already stays so."""
        try:
            self.call("CloseSocket", api.CloseSocketRequest(name=name))
        except OSError:  # it is gone, or the daemon is
            pass

    def forget(self, name):
        """Closes it, without waiting."""
        self._forgotten.put(name)

    def _keep(self):
        due = time.monotonic() + self.idle_timeout / 3
        while True:
            try:
                self._closing = self._forgotten.get(timeout=max(0, due - time.monotonic()))
                self.close(self._closing)
            except queue.Empty:
                due = time.monotonic() + self.idle_timeout / 3
                self._touch()

    def _touch(self):
        """To ask whether a socket is ready is to use it."""
        names = [s.name for s in list(self._open) if s.name]
        while names:
            some, names = names[:1024], names[1024:]
            while some:
                try:
                    self.call("Poll", api.PollRequest(readable=some, timeout={"seconds": 0}))
                    break
                except OSError as e:  # one of them is gone
                    gone = getattr(e, "metadata", {}).get("socket", "")
                    if gone not in some:
                        return  # the daemon is
                    some.remove(gone)

    def _exit(self):
        """As the kernel does when a process ends."""
        if os.getpid() != self._pid:
            return
        for s in list(self._open):
            s._real_close()
        names = [self._closing]
        while not self._forgotten.empty():
            names.append(self._forgotten.get())
        for name in filter(None, names):
            self.close(name)
        for line in self._lines:
            line.channel.close()
