"""NumPy arrays in messages and out of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maskx_tf.protocol.messages import TensorProto

STRING, HALF_FLOATS = 7, 19  # tensorflow/core/framework/types.proto, as are the numbers below
TYPES: dict[int, Any] = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    STRING: np.object_,
    9: np.int64,
    10: np.bool_,
    17: np.uint16,
    HALF_FLOATS: np.float16,
    22: np.uint32,
    23: np.uint64,
}
NUMBERS = {np.dtype(kind): number for number, kind in TYPES.items()}
NAMES = {number: f"DT_{np.dtype(kind).name.upper()}" for number, kind in TYPES.items()} | {
    1: "DT_FLOAT",
    2: "DT_DOUBLE",
    STRING: "DT_STRING",
    10: "DT_BOOL",
    HALF_FLOATS: "DT_HALF",
}
FIELDS = {  # where the values are that are not in tensor_content
    1: "float_val",
    2: "double_val",
    STRING: "string_val",
    9: "int64_val",
    10: "bool_val",
    HALF_FLOATS: "half_val",
    22: "uint32_val",
    23: "uint64_val",
}
MOST_BYTES = 2**30
MOST_AXES = 32


def to_proto(array: np.ndarray) -> Any:
    """The message of an array; of type object, it holds bytes.

    Raises:
        ValueError: the type of its elements has no place in a message.
    """
    number = NUMBERS.get(array.dtype)
    if number is None:
        raise ValueError(f"an array of {array.dtype} cannot be sent")
    message = TensorProto(dtype=number)
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    if number == STRING:
        message.string_val.extend(array.ravel())
    else:
        message.tensor_content = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes()
    return message


def from_proto(message: Any, most_bytes: int = MOST_BYTES) -> np.ndarray:
    """The array of a message; of strings, an array of objects.

    Args:
        message: a TensorProto.
        most_bytes: the limit of an array that is larger than its message, because its last value is repeated.

    Raises:
        ValueError: the message contradicts itself, or its array is too large.
    """
    kind = TYPES.get(message.dtype)
    if kind is None:
        raise ValueError(f"a tensor of type {message.dtype} cannot be read")
    shape = [dim.size for dim in message.tensor_shape.dim]
    if message.tensor_shape.unknown_rank or min(shape, default=0) < 0 or len(shape) > MOST_AXES:
        raise ValueError(f"a tensor has the shape {shape[:MOST_AXES]}, expected a whole one")
    count = math.prod(shape)
    if message.tensor_content and message.dtype != STRING:
        data = np.frombuffer(message.tensor_content, np.dtype(kind).newbyteorder("<")) if _is_whole(message) else ()
        if len(data) != count:
            raise ValueError(f"a tensor of shape {shape} has {len(message.tensor_content)} bytes of {np.dtype(kind)}")
        return np.asarray(data, kind).reshape(shape)
    return _repeated(message, kind, count, most_bytes).reshape(shape)


def _is_whole(message: Any) -> bool:
    return len(message.tensor_content) % np.dtype(TYPES[message.dtype]).itemsize == 0


def _repeated(message: Any, kind: Any, count: int, most_bytes: int) -> np.ndarray:
    """Returns the values of the field for this type; the last one is repeated for missing ones."""
    values: Any = getattr(message, FIELDS.get(message.dtype, "int_val"))
    if len(values) > count or (count and not values):
        raise ValueError(f"a tensor of {count} elements has {len(values)} values")
    if len(values) < count and count * np.dtype(kind).itemsize > most_bytes:
        raise ValueError(f"a tensor of {count} elements has {len(values)} values")
    if message.dtype == STRING:
        array = np.empty(len(values), kind)
        array[:] = values
    else:
        # One after the other, for a list of Python's numbers would take ten times the message.
        narrow = np.dtype(np.uint16 if message.dtype == HALF_FLOATS else kind)
        wide = np.fromiter(values, narrow if narrow.itemsize > 2 or kind is np.bool_ else np.int32, len(values))
        array = wide.astype(narrow)
        if narrow.itemsize < 4 and (array != wide).any():
            raise ValueError(f"a tensor of {np.dtype(kind)} has values beyond its range")
        array = array.view(kind)
    return array if len(array) == count else np.concatenate([array, np.repeat(array[-1:], count - len(array))])
