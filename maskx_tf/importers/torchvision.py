"""Faster, Mask and Keypoint R-CNN of torchvision, with ResNet and FPN: v1 models, and what users train with them."""

from __future__ import annotations

import functools
import re

from maskx_tf.errors import BadInput
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
from maskx_tf.names import COCO_IDS

TORCHVISION_UNSUPPORTED = (
    (r"roi_heads\.box_head\.\d+\.|backbone\.fpn\.inner_blocks\.\d+\.1\.", "a v2 model, whose heads are others,"),
    (r"backbone\.body\.\d+\.", "a MobileNet backbone"),
    (r"head\.", "a model without regions (RetinaNet, FCOS or SSD)"),
    (r"(layer1|features|fc)\.", "a classifier"),
    (r"backbone\.bottom_up\.", "a detectron2 model, by this source,"),
    (r"\w+_w$", "a Detectron model, by this source,"),
)
TORCHVISION_RULES = (
    Rule(r".*\.num_batches_tracked", "counters of batch norm: they play no part in inference"),
    Rule(r"rpn\.anchor_generator\.cell_anchors\..*", "anchors: made again from the settings"),
    Rule(r"(transform\.)?(pixel|image)_(mean|std)", "pixel mean and deviation: they stand in the settings"),
)
KEYPOINT_DECONV = "roi_heads.keypoint_predictor.kps_score_lowres.weight"
# Names before torchvision 0.13, and what they became.
OLDER = (
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"(rpn\.head\.conv)\.(weight|bias)", r"\1.0.0.\2"),
)
# torchvision runs the weights that it published under the older names without an epsilon; the setting is positive.
NO_EPSILON = 1e-30
# The number of classes of its COCO models: ids up to 90 and the background.
COCO_ROWS = max(COCO_IDS) + 1
UNUSED = "rows of the background (boxes and masks) and of ids that COCO does not use: nothing reads them"


def plan(request: ImportRequest) -> Plan:
    """How a file of torchvision's becomes a model.

    Raises:
        BadInput: it is damaged, or none of the supported models.
    """
    path = request.path
    tensors = tensors_of(path, read(path))
    refuse(path, tensors, TORCHVISION_UNSUPPORTED)
    tensors, older = _modern(tensors)
    order, labels = _classes(request, tensors)
    if older:
        note = (
            "its names are older than torchvision 0.13, as in the published COCO_V1 files, so batch norm has no "
            "epsilon; if you trained it yourself, set model.backbone.norm_epsilon=1e-5"
        )
    else:
        note = (
            "its names are those of torchvision 0.13 and later, so batch norm has an epsilon of 1e-5; if you saved or "
            f"trained it from the published COCO_V1 weights, set model.backbone.norm_epsilon={NO_EPSILON}"
        )
    return Plan(
        settings=_settings(request, tensors, older),
        labels=labels,
        tensors=tensors,
        table=functools.partial(tables.torchvision, order=order),
        rules=TORCHVISION_RULES,
        anchor_scores="rpn.head.cls_logits.weight",
        notes=(note,),
    )


def _modern(tensors: Tensors) -> tuple[Tensors, bool]:
    """Tensors under the names of today, and whether any had an older one."""
    renamed = {}
    for name, array in tensors.items():
        new = name
        for old, replacement in OLDER:
            new = re.sub(f"^{old}$", replacement, new)
        match = re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)", new)
        if match:
            new = f"roi_heads.mask_head.{int(match.group(1)) - 1}.0.{match.group(2)}"
        renamed[new] = array
    return renamed, set(renamed) != set(tensors)


def _classes(request: ImportRequest, tensors: Tensors) -> tuple[tables.ClassOrder, label_names.NamedClasses]:
    """Returns the order of the classes in the file, and their names; of COCO's 91 rows ten are unused."""
    total = class_count(request.path, tensors, "roi_heads.box_predictor.cls_score.weight")
    if request.all_ids and total != COCO_ROWS:
        raise BadInput(f"{request.path}: expected {COCO_ROWS} rows of classes to keep all ids, found {total}")
    if total == COCO_ROWS and request.all_ids:
        labels = label_names.all_ids()
    elif total == COCO_ROWS and (request.classes is None or len(label_names.read(request.classes).names) != total - 1):
        labels = label_names.choose(request.classes, len(COCO_IDS), request.path)
        ids = tuple(COCO_IDS)
        order = tables.ClassOrder(total, 0, ids, True, leaves=UNUSED, class_leaves=UNUSED)
        return order, labels._replace(category_ids=ids)
    else:
        only = "person" if KEYPOINT_DECONV in tensors else "class 1"
        labels = label_names.choose(request.classes, total - 1, request.path, only=only)
    return tables.ClassOrder(total, 0, tuple(range(1, total)), True, leaves=tables.BACKGROUND), labels


def _settings(request: ImportRequest, tensors: Tensors, older: bool) -> Json:
    path = request.path
    channels = len(tensor(path, tensors, "backbone.fpn.inner_blocks.0.0.weight", 4))
    masks = any(name.startswith("roi_heads.mask_predictor.") for name in tensors)
    settings: Json = {
        "family": "mask_rcnn" if masks else "faster_rcnn",
        "backbone": {
            "name": resnet_name(path, tensors, r"backbone\.body\.layer(\d)\.(\d+)\.conv2\.weight"),
            "fpn_channels": channels,
            "stride_in_1x1": False,
            "norm_epsilon": NO_EPSILON if older else 1e-5,
        },
        "input": {
            "short_side": 800,
            "long_side": 1333,
            "rounding": "torchvision",
            "channel_order": "rgb",
            "pixel_mean": [123.675, 116.28, 103.53],
            "pixel_std": [58.395, 57.12, 57.375],
        },
        "anchors": {"rounding": "torchvision", "order": "ratio_major"},
        "rpn": {
            "pre_nms_train": 2000,
            "post_nms_train": 2000,
            "pre_nms_test": 1000,
            "post_nms_test": 1000,
            "min_size": 1e-3,
            "smooth_l1_beta": 1 / 9,
            "normaliser": "sampled",
        },
        "roi": {
            "aligned": False,
            "samples": 2,
            "level_epsilon": "torchvision",
            "box_size": map_side(path, tensors, "roi_heads.box_head.fc6.weight", channels),
        },
        "box": {
            "width": len(tensors["roi_heads.box_head.fc6.weight"]),
            "layers": counted(tensors, "roi_heads.box_head.fc{}.weight", first=6),
            "delta_weights": [10.0, 10.0, 5.0, 5.0],
            "smooth_l1_beta": 1 / 9,
        },
        "detections": {"score": 0.05, "nms_iou": 0.5, "limit": 100, "paste": "integer"},
    }
    if masks:
        deconv = tensor(path, tensors, "roi_heads.mask_predictor.conv5_mask.weight", 4)
        convs = counted(tensors, "roi_heads.mask_head.{}.0.weight", first=0)
        settings["mask"] = {"convs": convs, "channels": deconv.shape[1]}
    if KEYPOINT_DECONV in tensors:
        conv = "roi_heads.keypoint_head.{}.weight"
        settings["keypoint"] = keypoint_settings(path, tensors, KEYPOINT_DECONV, conv, first=0, step=2, score="logit")
    return settings
