"""Faster, Mask and Keypoint R-CNN of detectron2's model zoo, with ResNet or ResNeXt and the necks FPN, C4 or DC5."""

from __future__ import annotations

import functools

from maskx_tf.files import Json
from maskx_tf.importers import labels as label_names
from maskx_tf.importers import tables
from maskx_tf.importers.fill import Rule
from maskx_tf.importers.plan import (
    ImportRequest,
    Plan,
    Tensors,
    class_count,
    counted,
    keypoint_settings,
    map_side,
    refuse,
    resnet_name,
    tensor,
)
from maskx_tf.importers.readers import read, tensors_of

DETECTRON2_UNSUPPORTED = (
    (r"roi_heads\.box_(head|predictor)\.\d+\.", "a Cascade R-CNN"),
    (r"sem_seg_head\.", "a panoptic model"),
    (r"head\.", "a RetinaNet"),
    (r".*\.(fpn_\w+\d|box_head\.conv\d|mask_fcn\d)\.norm\.", "a model with normalisation in its pyramid or heads"),
    (r"roi_heads\.box_head\.conv\d", "a box head of convolutions"),
    (r"backbone\.(body|fpn\.)", "a torchvision model, by this source,"),
    (r".*\w+_w$", "a Detectron model, by this source,"),
)
DETECTRON2_RULES = (
    Rule(r".*\.num_batches_tracked", "counters of batch norm: they play no part in inference"),
    Rule(r"proposal_generator\.anchor_generator\.cell_anchors\..*", "anchors: made again from the settings"),
    Rule(r"pixel_(mean|std)", "pixel mean and deviation: they stand in the settings"),
)
SCORE_DECONV = "roi_heads.keypoint_head.score_lowres.weight"
SCORE_WEIGHTS = "roi_heads.box_predictor.cls_score.weight"
BOX_WEIGHTS = "roi_heads.box_predictor.bbox_pred.weight"
DETECTRON2_NOTES = (
    "an image's sides are rounded down after resizing and interpolated without antialiasing, where detectron2 rounds "
    "to the nearest and uses PIL",
)


def plan(request: ImportRequest) -> Plan:
    """How a file of detectron2's becomes a model.

    Raises:
        BadInput: it is damaged, or none of the supported models.
    """
    path = request.path
    tensors = tensors_of(path, read(path))
    refuse(path, tensors, DETECTRON2_UNSUPPORTED)
    total = class_count(path, tensors, SCORE_WEIGHTS)
    return Plan(
        settings=_settings(request, tensors, total),
        labels=label_names.choose(
            request.classes, total - 1, path, only="person" if SCORE_DECONV in tensors else "class 1"
        ),
        tensors=tensors,
        # The background comes last, and has no boxes and no masks.
        table=functools.partial(
            tables.detectron2, order=tables.ClassOrder(total, total - 1, tuple(range(total - 1)), False)
        ),
        rules=DETECTRON2_RULES,
        anchor_scores="proposal_generator.rpn_head.objectness_logits.weight",
        notes=DETECTRON2_NOTES,
    )


def _neck(tensors: Tensors) -> str:
    if "backbone.fpn_lateral2.weight" in tensors:
        return "fpn"
    return "c4" if any(name.startswith("roi_heads.res5.") for name in tensors) else "dc5"


def _settings(request: ImportRequest, tensors: Tensors, total: int) -> Json:
    path, neck = request.path, _neck(tensors)
    body = r"backbone\.bottom_up" if neck == "fpn" else r"(?:backbone|roi_heads)"
    name = resnet_name(path, tensors, body + r"\.res(\d)\.(\d+)\.conv2\.weight")
    masks = any(one.startswith("roi_heads.mask_head.") for one in tensors)
    settings: Json = {
        "family": "mask_rcnn" if masks else "faster_rcnn",
        # The zoo's ResNets are Microsoft's, its ResNeXts Facebook's: shapes do not tell where the stride is.
        "backbone": {"name": name, "neck": neck, "norm_epsilon": 1e-5, "stride_in_1x1": not name.startswith("resnext")},
        "input": {"short_side": 800, "long_side": 1333, "channel_order": "bgr", **_pixels(name, tensors)},
        "anchors": {"rounding": "none", "order": "size_major"},
        "rpn": {
            "pre_nms_train": 2000,
            "post_nms_train": 1000,
            "pre_nms_test": 1000,
            "post_nms_test": 1000,
            "min_size": 0.0,
            "smooth_l1_beta": 0.0,
            "normaliser": "fixed",
        },
        # No file of detectron2's holds its configuration; 0, its default, is what the whole zoo has.
        "roi": {"aligned": True, "samples": 0, "level_epsilon": "detectron2"},
        "box": {
            "delta_weights": [10.0, 10.0, 5.0, 5.0],
            "smooth_l1_beta": 0.0,
            "class_agnostic": total > 2 and len(tensor(path, tensors, BOX_WEIGHTS, 2)) == 4,
        },
        "detections": {"score": 0.05, "nms_iou": 0.5, "limit": 100, "paste": "continuous"},
    }
    if neck == "fpn":
        channels = settings["backbone"]["fpn_channels"] = len(tensors["backbone.fpn_lateral2.weight"])
    else:
        channels = 2048
        settings["anchors"]["sizes"] = [[32.0, 64.0, 128.0, 256.0, 512.0]]
        settings["rpn"] |= {"pre_nms_train": 12000, "post_nms_train": 2000, "pre_nms_test": 6000}
    if neck == "c4":
        settings["roi"] |= {"box_size": 14, "mask_size": 14}
    else:
        first = "roi_heads.box_head.fc1.weight"
        settings["roi"]["box_size"] = map_side(path, tensors, first, channels)
        settings["box"] |= {
            "width": len(tensors[first]),
            "layers": counted(tensors, "roi_heads.box_head.fc{}.weight", first=1),
        }
    if masks:
        outputs = len(tensor(path, tensors, "roi_heads.mask_head.predictor.weight", 4))
        settings["mask"] = {
            "convs": counted(tensors, "roi_heads.mask_head.mask_fcn{}.weight", first=1),
            "channels": tensor(path, tensors, "roi_heads.mask_head.deconv.weight", 4).shape[1],
            "outputs": "agnostic" if outputs == 1 and total > 2 else "specific",
        }
    if SCORE_DECONV in tensors:
        conv = "roi_heads.keypoint_head.conv_fcn{}.weight"
        settings["box"]["smooth_l1_beta"] = 0.5
        settings["rpn"]["post_nms_train"] = 1500
        settings["keypoint"] = keypoint_settings(
            path, tensors, SCORE_DECONV, conv, first=1, step=1, score="probability"
        )
    return settings


def _pixels(name: str, tensors: Tensors) -> dict[str, list[float]]:
    """Mean and deviation of the pixels: what the file has, or what the zoo's configurations have."""
    mean, std = [103.53, 116.28, 123.675], [1.0, 1.0, 1.0]
    if name.startswith("resnext"):
        std = [57.375, 57.12, 58.395]
    if "pixel_mean" in tensors and "pixel_std" in tensors:
        # Through text, for float32's 103.53 is 103.52999877929688.
        mean, std = ([float(str(number)) for number in tensors[f"pixel_{kind}"].ravel()] for kind in ("mean", "std"))
    return {"pixel_mean": mean, "pixel_std": std}
