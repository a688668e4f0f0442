"""Makes the descriptor of `buf/validate/validate.proto` known to protobuf's default pool.

Generated modules import this one where protoc wrote `buf.validate.validate_pb2`: no package ships that module, but
`protovalidate` ships the descriptor. Written by hand, the only such file in `llmlab.api`.
"""

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    timestamp_pb2,
)
from google.protobuf.descriptor import FileDescriptor
from protovalidate._gen.buf.validate import validate_pb

__all__ = ["DESCRIPTOR"]

_NAME = "buf/validate/validate.proto"


def _register() -> FileDescriptor:
    """Adds the file to the default pool, unless another library has added it already."""
    pool = descriptor_pool.Default()
    # The pool resolves imports only among the files that it holds; importing these modules has put them there.
    for imported in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        pool.FindFileByName(imported.DESCRIPTOR.name)
    try:
        return pool.FindFileByName(_NAME)
    except KeyError:
        pool.AddSerializedFile(validate_pb.desc().proto.to_binary())
        # Registers the extensions' message classes, so that `options.Extensions[...]` works as with a generated module.
        message_factory.GetMessageClassesForFiles([_NAME], pool)
        return pool.FindFileByName(_NAME)


DESCRIPTOR: FileDescriptor = _register()
