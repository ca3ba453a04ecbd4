"""setsockopt and getsockopt: the daemon's table of options, by the kernel's numbers."""

import errno
import os
import re
import socket as _std
import struct
import threading

from . import api

# What one of the kernel's units of a time is, in nanoseconds, where it is not a second.
_UNITS = {
    (_std.IPPROTO_TCP, 18): 10**6,  # TCP_USER_TIMEOUT
    (_std.SOL_SOCKET, 46): 10**3,  # SO_BUSY_POLL
}
_GO_UNITS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "ns": 1}

_table = {}
_lock = threading.Lock()


def lookup(client, level, number):
    """The row of the table, or none: it is a raw option."""
    with _lock:
        if not _table:
            rows = client.call("ListOptions", api.ListOptionsRequest()).options
            _table.update({(o.level, o.option): o for o in rows if o.kernel_name})
    return _table.get((level, number))


def set(client, name, level, number, value):
    """setsockopt(2)."""
    row = lookup(client, level, number)
    key = row.name if row else "so:%d:%d" % (level, number)
    request = api.SetOptionsRequest(target=name)
    _encode(request.options[key], row, level, number, value)
    try:
        response = client.call("SetOptions", request)
    except OSError as e:
        raise _unknown(e) from None
    result = response.results[0]
    if result.outcome == api.OptionResult.OUTCOME_FAILED:
        raise OSError(getattr(errno, result.errno, errno.EINVAL), result.message)


def get(client, name, level, number, buflen):
    """getsockopt(2)."""
    row = lookup(client, level, number)
    key = row.name if row else "so:%d:%d" % (level, number)
    try:
        response = client.call("GetOptions", api.GetOptionsRequest(target=name, names=[key]))
    except OSError as e:
        raise _unknown(e) from None
    if key not in response.options:
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
    value = _decode(response.options[key], row, level, number)
    if isinstance(value, bytes):
        return value[:buflen] if buflen else int.from_bytes(value[:4], "little")
    return struct.pack("@i", value)[:buflen] if buflen else value


def _unknown(error):
    """An option that this socket does not have is none to the kernel."""
    if error.errno == errno.EINVAL:
        return OSError(errno.ENOPROTOOPT, error.strerror)
    return error


def _encode(out, row, level, number, value):
    if row is None:
        if isinstance(value, int):
            out.number_value = value
        else:
            out.string_value = "0x" + bytes(value).hex()
        return
    if row.name == "linger":
        on, seconds = struct.unpack("@ii", value)
        if on:
            out.string_value = "%ds" % seconds
        else:
            out.null_value = 0
        return
    if row.type == api.OptionSpec.TYPE_STRING and not row.choices or isinstance(value, str):
        out.string_value = value if isinstance(value, str) else bytes(value).rstrip(b"\0").decode()
        return
    if row.name == "tcp.congestion":
        out.string_value = bytes(value).rstrip(b"\0").decode()
        return
    if not isinstance(value, int):
        (value,) = struct.unpack("@i", value)
    if row.choices:
        if not 0 <= value < len(row.choices):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        out.string_value = row.choices[value]
    elif row.type == api.OptionSpec.TYPE_BOOL:
        out.bool_value = bool(value)
    elif row.type == api.OptionSpec.TYPE_DURATION:
        out.string_value = "%dns" % (value * _UNITS.get((level, number), 10**9))
    else:
        out.number_value = value


def _decode(value, row, level, number):
    which = value.WhichOneof("kind")
    if which == "bool_value":
        return int(value.bool_value)
    if which == "number_value":
        return int(value.number_value)
    text = value.string_value
    if row is None:
        return bytes.fromhex(text[2:])
    if row.name == "linger":
        return struct.pack("@ii", which == "string_value", _nanoseconds(text) // 10**9)
    if which == "null_value":
        return -1  # no limit
    if row.type == api.OptionSpec.TYPE_DURATION:
        return _nanoseconds(text) // _UNITS.get((level, number), 10**9)
    if row.name != "tcp.congestion" and text in row.choices:
        return list(row.choices).index(text)
    return text.encode() + b"\0"


def _nanoseconds(text):
    return round(sum(float(n) * _GO_UNITS[unit] for n, unit in re.findall(r"([\d.]+)([a-zµ]+)", text)))
