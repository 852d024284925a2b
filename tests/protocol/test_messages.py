"""Our messages against the official ones, field by field and value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.protocol import messages, tensors

pytest.importorskip("tensorflow_serving.apis", reason="the extra dev is missing")
from google.protobuf import any_pb2, descriptor_pb2, wrappers_pb2
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
)

OFFICIAL: dict[str, Any] = {
    "Int64Value": wrappers_pb2.Int64Value,
    "BoolValue": wrappers_pb2.BoolValue,
    "StringValue": wrappers_pb2.StringValue,
    "Any": any_pb2.Any,
    "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
    "TensorShape": tensor_shape_pb2.TensorShapeProto,
    "TensorProto": tensor_pb2.TensorProto,
    "TensorInfo": meta_graph_pb2.TensorInfo,
    "SignatureDef": meta_graph_pb2.SignatureDef,
    "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap,
    "ModelSpec": model_pb2.ModelSpec,
    "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse,
    "PredictLog": prediction_log_pb2.PredictLog,
    "PredictionLog": prediction_log_pb2.PredictionLog,
    "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
    "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
    "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
    "ModelVersionStatus": get_model_status_pb2.ModelVersionStatus,
}
OFFICIAL["StatusProto"] = type(get_model_status_pb2.ModelVersionStatus().status)
UNOFFICIAL = {"BatchingParameters", "PredictEntries"}  # the packages have no stub of the first, and the second is ours
WIRE = {"enum": "int32"}  # an enum is a number on the wire


def kind(field: Any) -> str:
    name = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return WIRE.get(name, name)


@pytest.mark.parametrize("name", sorted(messages.MESSAGES.keys() - UNOFFICIAL))
def test_fields_have_the_official_numbers_and_types(name) -> None:
    theirs = OFFICIAL[name].DESCRIPTOR.fields_by_name
    ours = messages.CLASSES[name].DESCRIPTOR.fields_by_name
    for field in messages.MESSAGES[name]:
        assert ours[field].number == theirs[field].number, field
        assert kind(ours[field]) == kind(theirs[field]), field
        assert ours[field].is_repeated == theirs[field].is_repeated, field


ARRAYS = [
    np.arange(6, dtype=kind).reshape(2, 3)
    for kind in ("f4", "f8", "i4", "u1", "i2", "i1", "i8", "u2", "f2", "u4", "u8")
] + [np.array([[True, False]]), np.float32(3.5), np.zeros([2, 0, 3], np.float32), np.array(["a", b"\xff\x00"], object)]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_reach_tensorflow_and_come_back(array) -> None:
    array = np.asarray(array)
    if array.dtype == object:
        array = np.array([b"a", b"\xff\x00"], object)
    ours = tensors.to_proto(array)
    theirs = tensor_pb2.TensorProto.FromString(ours.SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(theirs), array)
    assert tf.make_ndarray(theirs).dtype == array.dtype
    back = messages.TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString())
    np.testing.assert_array_equal(tensors.from_proto(back), array)
    assert tensors.from_proto(ours).dtype == array.dtype


@pytest.mark.parametrize("kind", ["f4", "f8", "i4", "u1", "i8", "u4", "u8", "f2", "?"])
def test_values_in_typed_fields(kind) -> None:
    array = np.array([[1, 0, 1], [1, 1, 1]], kind)
    message = tf.make_tensor_proto(array[1, 0], shape=[2, 3])  # the last value stands for the rest
    read = tensors.from_proto(messages.TensorProto.FromString(message.SerializeToString()))
    np.testing.assert_array_equal(read, np.ones([2, 3], kind))
    assert read.dtype == np.dtype(kind)
    half = np.array([1.5, -2.0], np.float16)
    message = tensor_pb2.TensorProto(dtype=19, half_val=half.view(np.uint16).tolist())
    message.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(
        tensors.from_proto(messages.TensorProto.FromString(message.SerializeToString())), half
    )


@pytest.mark.parametrize(
    ("fields", "sizes", "message"),
    [
        ({"dtype": 1, "tensor_content": b"123"}, [1], "3 bytes"),
        ({"dtype": 1, "tensor_content": b"12345678"}, [1], "8 bytes"),
        ({"dtype": 1}, [3], "0 values"),
        ({"dtype": 1, "float_val": [1, 2, 3]}, [2], "3 values"),
        ({"dtype": 4, "int_val": [1]}, [100_000, 100_000], "1 values"),
        ({"dtype": 1, "float_val": [1]}, [-1], "shape"),
        ({"dtype": 0}, [1], "type 0"),
        ({"dtype": 21, "int_val": [1]}, [1], "type 21"),
    ],
)
def test_messages_that_contradict_themselves(fields, sizes, message) -> None:
    proto = messages.TensorProto(**fields)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(ValueError, match=message):
        tensors.from_proto(proto)


def test_values_of_another_range_are_refused() -> None:
    proto = messages.TensorProto(dtype=4, int_val=[300])
    proto.tensor_shape.dim.add(size=1)
    with pytest.raises((ValueError, OverflowError)):
        tensors.from_proto(proto)


def test_arrays_without_a_message() -> None:
    with pytest.raises(ValueError, match="complex128"):
        tensors.to_proto(np.zeros(2, complex))
