"""The heads in NumPy, channels first and with the weights as Caffe2 and PyTorch store them: no layout of ours.

Of spec/maskx.md, sections 1 to 5, and of spec/mask_rcnn.md, sections 1 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
Layer = tuple[Array, Array]


def relu(values: Array) -> Array:
    return np.maximum(values, 0.0)


def conv(maps: Array, layer: Layer, stride: int = 1) -> Array:
    """[N, C, H, W] with a kernel [O, C, k, k], k // 2 zeros around."""
    kernel, bias = layer
    side = kernel.shape[-1]
    reach = side // 2
    height, width = (-(-size // stride) for size in maps.shape[2:])
    padded = np.pad(maps, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    result = np.zeros((len(maps), len(kernel), height, width))
    for y in range(side):
        for x in range(side):
            seen = padded[:, :, y : y + stride * height : stride, x : x + stride * width : stride]
            result += np.einsum("nchw,oc->nohw", seen[:, :, :height, :width], kernel[:, :, y, x])
    return result + bias[:, None, None]


def deconv(maps: Array, layer: Layer) -> Array:
    """2x2 with stride 2, kernel [C, O, 2, 2]."""
    kernel, bias = layer
    count, _, height, width = maps.shape
    result = np.zeros((count, kernel.shape[1], 2 * height, 2 * width))
    for y in range(2):
        for x in range(2):
            result[:, :, y::2, x::2] = np.einsum("nchw,co->nohw", maps, kernel[:, :, y, x])
    return result + bias[:, None, None]


def dense(rows: Array, layer: Layer) -> Array:
    """A fully connected layer [O, F] on flattened rows."""
    weight, bias = layer
    return rows.reshape(len(rows), -1) @ weight.T + bias


def box_head(pooled: Array, layers: Sequence[Layer]) -> Array:
    """Pooled features [N, C, S, S] to vectors."""
    for layer in layers:
        pooled = relu(dense(pooled, layer))
    return pooled


def mask_features(pooled: Array, convs: Sequence[Layer], last: Layer) -> Array:
    """Pooled features [N, C, S, S] to [N, C, 2 S, 2 S]."""
    for layer in convs:
        pooled = relu(conv(pooled, layer))
    return relu(deconv(pooled, last))


def transfer(class_rows: Array, box_rows: Array, layers: Sequence[Layer], reads: str, leak: float) -> Array:
    """Mask filters [classes, C], the background's among them, of cls_score_w and bbox_pred_w (or of a table alone)."""
    parts = {"cls": [class_rows], "box": [box_rows.reshape(len(class_rows), -1)], "table": [class_rows]}
    parts["cls_box"] = parts["cls"] + parts["box"]
    rows = np.concatenate(parts[reads], axis=1)
    for index, layer in enumerate(layers):
        if index > 0:
            rows = np.where(rows > 0, rows, leak * rows)
        rows = dense(rows, layer)
    return rows


def all_masks(features: Array, filters: Array, mlp: Layer | None = None) -> Array:
    """Logits [N, classes, M, M] of features [N, C, M, M]; the MLP's are the same for all classes."""
    logits = np.einsum("nchw,kc->nkhw", features, filters)
    if mlp is not None:
        logits = logits + dense(features, mlp).reshape(len(features), 1, *features.shape[2:])
    return logits
