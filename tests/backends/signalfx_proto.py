"""The messages of SignalFx's datapoint protocol, since no package for today's protobuf has them.

Field numbers and types are those of `signalfx_metrics.proto` (Go module
github.com/signalfx/com_signalfx_metrics_protobuf v0.0.3), syntax proto2.
"""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

GAUGE, COUNTER, ENUM, CUMULATIVE_COUNTER = range(4)
"""The values of MetricType, sent as an integer."""

_PACKAGE = "com.signalfx.metrics.model"
_TYPES = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "int32": FieldDescriptorProto.TYPE_INT32,  # on the wire the same as an enumeration
}
_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "Datum": ((1, "strValue", "string"), (2, "doubleValue", "double"), (3, "intValue", "int64")),
    "Dimension": ((1, "key", "string"), (2, "value", "string")),
    "DataPoint": (
        (1, "source", "string"),
        (2, "metric", "string"),
        (3, "timestamp", "int64"),
        (4, "value", "Datum"),
        (5, "metricType", "int32"),
        (6, "dimensions", "repeated Dimension"),
    ),
    "DataPointUploadMessage": ((1, "datapoints", "repeated DataPoint"),),
}


def _field(number: int, name: str, kind: str) -> FieldDescriptorProto:
    repeated, _, message = kind.rpartition(" ")
    field = FieldDescriptorProto(number=number, name=name)
    field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{message}"
    return field


def _upload_message() -> type[Message]:
    file = FileDescriptorProto(name="signalfx_metrics.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        file.message_type.append(DescriptorProto(name=name, field=[_field(*field) for field in fields]))
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.DataPointUploadMessage"))


DataPointUploadMessage = _upload_message()
"""What is posted to `/v2/datapoint`: datapoints of metric, timestamp (ms), value, metricType, dimensions."""
