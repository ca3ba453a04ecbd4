"""The API of the daemon: messages, enums and services of sockmgr.v1.

They are made from api.binpb, the descriptors that `make generate` writes, so
that no compiler and no plugin is needed, and any version of protobuf will do:

    from sockmgr import api
    stub = api.ListenerServiceStub(channel)
    stub.GetListener(api.GetListenerRequest(name="listeners/web"))

The comments on each are in proto/sockmgr/v1. The messages are in a pool of
their own, where they meet nobody else's.
"""

import pkgutil

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

POOL = descriptor_pool.DescriptorPool()


def message(full_name):
    """The class of a message in the pool."""
    descriptor = POOL.FindMessageTypeByName(full_name)
    if hasattr(message_factory, "GetMessageClass"):  # since protobuf 4.22
        return message_factory.GetMessageClass(descriptor)
    return _factory.GetPrototype(descriptor)


class _Stub:
    """The methods of one service, as those that grpc_tools makes."""

    _service = None  # its descriptor

    def __init__(self, channel):
        for method in self._service.method:
            ways = ["stream" if s else "unary" for s in (method.client_streaming, method.server_streaming)]
            make = getattr(channel, "_".join(ways))
            call = make(
                "/sockmgr.v1.%s/%s" % (self._service.name, method.name),
                request_serializer=message(method.input_type[1:]).SerializeToString,
                response_deserializer=message(method.output_type[1:]).FromString,
            )
            setattr(self, method.name, call)


def _load():
    files = descriptor_pb2.FileDescriptorSet.FromString(pkgutil.get_data("sockmgr", "api.binpb"))
    for file in files.file:
        POOL.AddSerializedFile(file.SerializeToString())
    for file in files.file:
        if file.package != "sockmgr.v1":
            continue
        for m in file.message_type:
            yield m.name, message("sockmgr.v1." + m.name)
        for e in file.enum_type:
            yield e.name, EnumTypeWrapper(POOL.FindEnumTypeByName("sockmgr.v1." + e.name))
            yield from ((value.name, value.number) for value in e.value)
        for s in file.service:
            yield s.name + "Stub", type(s.name + "Stub", (_Stub,), {"_service": s})


_factory = None if hasattr(message_factory, "GetMessageClass") else message_factory.MessageFactory(POOL)
globals().update(_load())
