"""The messages of TF Serving's services, without TensorFlow: the official stubs import all of it.

On the wire a message consists of field numbers and values, so two programs only need to agree on the tables below.
They hold the fields that this project sends or reads, under the official names and numbers; other fields are skipped,
as protocol buffers do. The messages live in a separate descriptor pool and never meet the official ones.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

PACKAGE = "maskx.serving"
# name: (number, type); "*" before a type repeats it, "map" makes it a map from strings.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    # google/protobuf
    "Int64Value": {"value": (1, "int64")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    # tensorflow/core/framework
    "Dim": {"size": (1, "int64")},
    "TensorShape": {"dim": (2, "*Dim"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShape"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "*float"),
        "double_val": (6, "*double"),
        "int_val": (7, "*int32"),
        "string_val": (8, "*bytes"),
        "int64_val": (10, "*int64"),
        "bool_val": (11, "*bool"),
        "half_val": (13, "*int32"),
        "uint32_val": (16, "*uint32"),
        "uint64_val": (17, "*uint64"),
    },
    "TensorInfo": {"name": (1, "string"), "dtype": (2, "int32"), "tensor_shape": (3, "TensorShape")},
    "SignatureDef": {
        "inputs": (1, "map TensorInfo"),
        "outputs": (2, "map TensorInfo"),
        "method_name": (3, "string"),
    },
    # tensorflow_serving/apis
    "SignatureDefMap": {"signature_def": (1, "map SignatureDef")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "map TensorProto"),
        "output_filter": (3, "*string"),
    },
    # A PredictRequest in few bytes: as a map, entries of two bytes each would take sixty times as many.
    "PredictEntries": {"inputs": (2, "*bytes"), "output_filter": (3, "*bytes")},
    "PredictResponse": {"outputs": (1, "map TensorProto"), "model_spec": (2, "ModelSpec")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "*string")},
    "GetModelMetadataResponse": {"model_spec": (1, "ModelSpec"), "metadata": (2, "map Any")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32"), "status": (3, "StatusProto")},
    "GetModelStatusResponse": {"model_version_status": (1, "*ModelVersionStatus")},
    # tensorflow_serving/servables/tensorflow/session_bundle_config.proto: what a batching file holds
    "BoolValue": {"value": (1, "bool")},
    "StringValue": {"value": (1, "string")},
    "BatchingParameters": {
        "max_batch_size": (1, "Int64Value"),
        "batch_timeout_micros": (2, "Int64Value"),
        "max_enqueued_batches": (3, "Int64Value"),
        "num_batch_threads": (4, "Int64Value"),
        "thread_pool_name": (5, "StringValue"),
        "allowed_batch_sizes": (6, "*int64"),
        "pad_variable_length_inputs": (7, "bool"),
    },
    # tensorflow_serving/apis/prediction_log.proto: a request for warming up
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}
PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
# service: {method: (request, response)}
SERVICES: dict[str, dict[str, tuple[str, str]]] = {
    PREDICTION: {
        "Predict": ("PredictRequest", "PredictResponse"),
        "GetModelMetadata": ("GetModelMetadataRequest", "GetModelMetadataResponse"),
    },
    MODEL: {"GetModelStatus": ("GetModelStatusRequest", "GetModelStatusResponse")},
}
SIGNATURE_DEF = "signature_def"  # the one field of metadata that a model has
SIGNATURES_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
PREDICT_METHOD = "tensorflow/serving/predict"
# The signatures of our exports: image files, pixels, and image files with boxes.
SERVING_DEFAULT, IMAGE_TENSOR, SEGMENT_BOXES = "serving_default", "image_tensor", "segment_boxes"
# Requests that a server runs before it accepts others, in the folder of a version.
WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
HIGHEST_VERSION = 2**63 - 1
# States of a version, tensorflow_serving/apis/get_model_status.proto.
START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50
STATES = {START: "START", LOADING: "LOADING", AVAILABLE: "AVAILABLE", UNLOADING: "UNLOADING", END: "END"}


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.startswith("map "):
        entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, kind.removeprefix("map "))
        field.type_name = f".{PACKAGE}.{message.name}.{entry.name}"
    if kind.startswith(("map ", "*")):
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    kind = kind.removeprefix("*")
    if kind in MESSAGES:
        field.type_name = f".{PACKAGE}.{kind}"
    if field.type_name:
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


def _pool() -> descriptor_pool.DescriptorPool:
    """A pool that holds the messages and the services."""
    messages = descriptor_pb2.FileDescriptorProto(name="maskx_serving.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = messages.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(messages)
    services = descriptor_pb2.FileDescriptorProto(
        name="maskx_services.proto", package="tensorflow.serving", syntax="proto3", dependency=[messages.name]
    )
    for name, methods in SERVICES.items():
        service = services.service.add(name=name.removeprefix(f"{services.package}."))
        for method, (request, response) in methods.items():
            types = {"input_type": f".{PACKAGE}.{request}", "output_type": f".{PACKAGE}.{response}"}
            service.method.add(name=method, **types)
    pool.Add(services)
    return pool


POOL = _pool()
CLASSES: dict[str, Any] = {
    name: message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES
}
TensorProto = CLASSES["TensorProto"]
ModelSpec = CLASSES["ModelSpec"]
SignatureDefMap = CLASSES["SignatureDefMap"]
PredictRequest, PredictResponse = CLASSES["PredictRequest"], CLASSES["PredictResponse"]
PredictEntries = CLASSES["PredictEntries"]
GetModelMetadataRequest, GetModelMetadataResponse = (
    CLASSES["GetModelMetadataRequest"],
    CLASSES["GetModelMetadataResponse"],
)
GetModelStatusRequest, GetModelStatusResponse = CLASSES["GetModelStatusRequest"], CLASSES["GetModelStatusResponse"]
BatchingParameters = CLASSES["BatchingParameters"]
PredictionLog = CLASSES["PredictionLog"]
