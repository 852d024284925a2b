"""Requests that a server answers to itself before anybody waits: TF Serving's assets.extra/tf_serving_warmup_requests.

The file holds `PredictionLog` messages, whose classes come with the official stubs alone. Three levels of two fields
are written here by hand in the wire format of protocol buffers; a test reads them with the stubs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from maskx_tf.export.signatures import IMAGE_TENSOR, SEGMENT_BOXES, SERVING_DEFAULT

FILE = Path("assets.extra") / "tf_serving_warmup_requests"


def write(path: Path, name: str, signatures: list[str], canvas: tuple[int, int], count: int) -> None:
    """Writes requests of one image for each signature.

    Args:
        path: of the file, in a folder that may not exist yet.
        name: of the model, as the server calls it.
        signatures: whose requests are written.
        canvas: a size of image that the model likes.
        count: requests for each signature.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature in signatures:
            for _ in range(count):
                writer.write(_prediction_log(name, signature, _inputs(signature, canvas)))


def _inputs(signature: str, canvas: tuple[int, int]) -> Mapping[str, tf.Tensor]:
    pixels = np.random.default_rng(0).integers(0, 256, (*canvas, 3), np.uint8)
    file = tf.io.encode_jpeg(pixels)[None]
    return {
        SERVING_DEFAULT: {"image_bytes": file},
        IMAGE_TENSOR: {"input_tensor": tf.constant(pixels[None])},
        SEGMENT_BOXES: {"image_bytes": file, "boxes": tf.constant([[[0.25, 0.25, 0.75, 0.75]]])},
    }[signature]


def _prediction_log(name: str, signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    model_spec = _field(1, name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for key, tensor in inputs.items():
        message = tf.make_tensor_proto(tensor.numpy()).SerializeToString()
        request += _field(2, _field(1, key.encode()) + _field(2, message))  # an entry of the map
    return _field(6, _field(1, request))  # predict_log, request


def _field(number: int, content: bytes) -> bytes:
    """A field of text, bytes or a message."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
