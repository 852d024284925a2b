"""Writes TF Serving's warm-up requests, which a server runs before it accepts other requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from maskx_tf.protocol import messages
from maskx_tf.protocol.messages import IMAGE_TENSOR, SEGMENT_BOXES, SERVING_DEFAULT
from maskx_tf.protocol.tensors import to_proto


def write(path: Path, name: str, signatures: list[str], canvas: tuple[int, int], count: int) -> None:
    """Writes requests of one image for each signature.

    Args:
        path: the path of the file, in a folder that may not exist yet.
        name: the name of the model on the server.
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
    log = messages.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, tensor in inputs.items():
        request.inputs[key].CopyFrom(to_proto(np.asarray(tensor.numpy())))
    content: bytes = log.SerializeToString()
    return content
