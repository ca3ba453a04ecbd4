"""What the daemon refuses, as Python's own exceptions."""

import errno
import socket as _std

import grpc
from google.protobuf import descriptor_pb2, text_format

from . import api

# google.rpc.Status and ErrorInfo: Debian has no package of them.
_RPC = """
name: "google/rpc/status.proto" package: "google.rpc" syntax: "proto3"
message_type { name: "Any"
  field { name: "type_url" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "value" number: 2 type: TYPE_BYTES label: LABEL_OPTIONAL } }
message_type { name: "Status"
  field { name: "details" number: 3 type: TYPE_MESSAGE type_name: ".google.rpc.Any" label: LABEL_REPEATED } }
message_type { name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "value" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "ErrorInfo"
  field { name: "reason" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "metadata" number: 3 type: TYPE_MESSAGE type_name: ".google.rpc.Entry" label: LABEL_REPEATED } }
"""
api.POOL.AddSerializedFile(text_format.Parse(_RPC, descriptor_pb2.FileDescriptorProto()).SerializeToString())
_Status, _ErrorInfo = api.message("google.rpc.Status"), api.message("google.rpc.ErrorInfo")

# What an error is that has no errno of the kernel's.
_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: errno.EINVAL,
    grpc.StatusCode.NOT_FOUND: errno.ENOENT,
    grpc.StatusCode.PERMISSION_DENIED: errno.EACCES,
    grpc.StatusCode.UNAUTHENTICATED: errno.EACCES,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errno.ENOBUFS,
    grpc.StatusCode.DEADLINE_EXCEEDED: errno.ETIMEDOUT,
    grpc.StatusCode.UNIMPLEMENTED: errno.EOPNOTSUPP,
    grpc.StatusCode.CANCELLED: errno.ECANCELED,
}


class Unavailable(ConnectionAbortedError):
    """No daemon answers: there is none, or it has ended, and its sockets with it."""


def of(error):
    """The OSError for an RpcError. It has the errno, the daemon's sentence as
    strerror, and as .reason and .metadata what docs/errors.md says."""
    reason, metadata = _info(error)
    number = int(metadata.get("errno_number", _BY_CODE.get(error.code(), errno.EIO)))
    words = error.details()
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        made = Unavailable(errno.ECONNABORTED, words)
    elif number == errno.EADDRNOTAVAIL and "socket" not in metadata:  # nobody has tried to bind it
        made = _std.gaierror(_std.EAI_NONAME, words)
    elif number == errno.ETIMEDOUT and ("timeout" in metadata or not reason):  # the socket's timeout, not the kernel's
        made = TimeoutError(number, "timed out")
    else:
        made = OSError(number, words)
    made.reason, made.metadata = reason, metadata
    return made


def _info(error):
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in _Status.FromString(value).details:
            if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                info = _ErrorInfo.FromString(detail.value)
                return info.reason, {entry.key: entry.value for entry in info.metadata}
    return "", {}
