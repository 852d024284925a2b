"""FCIS (msracver/FCIS) and R-FCN (msracver/Deformable-ConvNets, without deformable layers), from MXNet's files."""

from __future__ import annotations

import functools

from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.importers import labels as label_names
from maskx_tf.importers.fill import Rule
from maskx_tf.importers.labels import NamedClasses
from maskx_tf.importers.mxnet import names
from maskx_tf.importers.mxnet.params import read_params
from maskx_tf.importers.plan import ImportRequest, Plan, Tensors, refuse, resnet_name, tensor
from maskx_tf.names import VOC

MXNET_RULES = (Rule(r".*_test", "box deltas in pixels, which the program writes next to those that it learned"),)
MXNET_UNSUPPORTED = (
    (r".*offset", "a deformable network"),
    (r"fc\d*_|bbox_pred_|cls_score_", "a model with fully connected heads"),
)
# Square roots of the anchors' areas by the number of anchors a cell, of three ratios.
ANCHOR_SIZES = {9: [128, 256, 512], 12: [64, 128, 256, 512]}


def plan(request: ImportRequest) -> Plan:
    """How a `.params` file becomes a model.

    Raises:
        BadInput: it is damaged, or none of the supported models.
    """
    path = request.path
    tensors = read_params(path)
    refuse(path, tensors, MXNET_UNSUPPORTED)
    masks = f"{names.MXNET_MAPS[True][0]}_weight" in tensors
    scores = tensor(path, tensors, f"{names.MXNET_MAPS[masks][0]}_weight", 4)
    labels = names.block_labels(tensors)
    group = _group(request, tensors, masks)
    classes, rest = divmod(len(scores), (2 if masks else 1) * group**2)
    if rest or classes < 2:
        raise BadInput(f"{path}: {len(scores)} score maps, expected those of two classes or more on {group} x {group}")
    return Plan(
        settings=_settings(request, tensors, labels, masks, group),
        labels=_names_of(request, classes - 1),
        tensors=tensors,
        table=functools.partial(names.table, labels=labels),
        rules=MXNET_RULES,
    )


def _group(request: ImportRequest, tensors: Tensors, masks: bool) -> int:
    """k, of the box maps: two quadruples a cell."""
    maps = tensor(request.path, tensors, f"{names.MXNET_MAPS[masks][1]}_weight", 4)
    group = round((len(maps) / 8) ** 0.5)
    if 8 * group**2 != len(maps) or not group:
        raise BadInput(f"{request.path}: {len(maps)} box maps, expected 8 for each cell of a square")
    return group


def _names_of(request: ImportRequest, count: int) -> NamedClasses:
    if request.classes is None and count == len(VOC):
        return NamedClasses(VOC)
    return label_names.choose(request.classes, count, request.path)


def _settings(request: ImportRequest, tensors: Tensors, labels: dict[int, list[str]], masks: bool, group: int) -> Json:
    path = request.path
    numbered = {
        f"{stage}.{number}": tensors[f"res{stage}{label}_branch2b_weight"]
        for stage, every in labels.items()
        for number, label in enumerate(every)
    }
    pairs = len(tensor(path, tensors, "rpn_cls_score_weight", 4))
    if pairs // 2 not in ANCHOR_SIZES:
        expected = " or ".join(str(2 * number) for number in ANCHOR_SIZES)
        raise BadInput(f"{path}: rpn_cls_score_weight: expected {expected} rows, two for each anchor, found {pairs}")
    of_voc = pairs // 2 == 9
    least = 0 if not masks else 16 if of_voc else 2
    return {
        "family": "fcis",
        "backbone": {
            "name": resnet_name(path, numbered, r"(\d)\.(\d+)"),
            "neck": "dc5",
            "norm": "fixed_batch",
            "norm_epsilon": 1e-5,
            "stride_in_1x1": True,
            "stem_pool": "ceil",
        },
        "input": {
            "short_side": 600,
            "long_side": 1000,
            "channel_order": "rgb",
            "pixel_mean": [123.15, 115.9, 103.06],
            "pixel_std": [1.0, 1.0, 1.0],
        },
        "anchors": {
            "sizes": [ANCHOR_SIZES[pairs // 2]],
            "ratios": [0.5, 1.0, 2.0],
            "rounding": "detectron",
            "order": "ratio_major",
        },
        "rpn": {
            "pre_nms_train": 6000,
            "post_nms_train": 300,
            "pre_nms_test": 6000,
            "post_nms_test": 300,
            "min_size": least,
            "ignore_straddling": True,
        },
        "box": {
            "rois": 128,
            "background_iou": [0.1, 0.5] if of_voc and masks else [0.0, 0.5],
            "delta_weights": [5.0, 5.0, 2.0, 2.0] if masks else [10.0, 10.0, 5.0, 5.0],
            "smooth_l1_beta": 1.0,
        },
        "fcis": {
            "scores": "joint" if masks else "average",
            "passes": 2 if masks else 1,
            "group": group,
            "size": 3 * group if masks else group,
            "channels": len(tensor(path, tensors, "conv_new_1_weight", 4)),
            "rpn_channels": len(tensor(path, tensors, "rpn_conv_3x3_weight", 4)),
            "min_side": float(least) if masks else 2.0,
            "ohem": not (of_voc and masks),
        },
        "detections": {"score": 1e-3, "nms_iou": 0.3, "limit": 100, "paste": "replicate"},
    }
