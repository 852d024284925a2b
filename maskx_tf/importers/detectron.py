"""Faster, Mask and Mask^X R-CNN of Detectron and seg_every_thing, with ResNet or ResNeXt and FPN or C4."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from maskx_tf.errors import BadInput
from maskx_tf.files import Json, JsonView
from maskx_tf.importers import labels as label_names
from maskx_tf.importers import tables
from maskx_tf.importers.detectron_cfg import look_up, parse
from maskx_tf.importers.fill import Rule
from maskx_tf.importers.plan import (
    ImportRequest,
    Plan,
    Tensors,
    class_count,
    counted,
    map_side,
    refuse,
    resnet_name,
    tensor,
)
from maskx_tf.importers.readers import read, tensors_of

DETECTRON_UNSUPPORTED = (
    (r"(kps_score|conv_fcn\d)", "a keypoint model"),
    (r"retnet_", "a RetinaNet"),
    (r".*_gn_[sb]$", "a model with GroupNorm"),
    (r"fc_mask_head_mlp_l\d_w$", "an MLP mask branch of more than one layer"),
    (r"head_conv\d", "a box head of convolutions"),
    (r"conv_new_1_w$", "an R-FCN"),
    (r"(backbone|roi_heads|proposal_generator)\.", "a torchvision or detectron2 model, by this source,"),
)
# seg_every_thing keeps what a stage does not use, under its name or with this behind it.
BACKUP = "_jcvbackup"
TABLES = r"v_(glove|randn_\d+)"
DETECTRON_RULES = (
    Rule(r".*_momentum", "momentum of the optimizer"),
    Rule(r"(fc1000|pred)_[wb]", "the ImageNet classifier that training started from"),
    Rule(TABLES, "tables of word vectors that T does not read"),
)
DETECTRON_FOLDED = "biases of convolutions: added to those of the affine layers behind them"
RESTORED = f"replaced by the rows of the whole vocabulary, which {BACKUP} holds"
DETECTRON_NOTES = (
    "boxes are inclusive at the source: anchors, coding, overlap and level of a box agree here, but its RoIAlign and "
    "its pasting end at x2 - 1 and y2 - 1, and ours at x2 and y2; clipping differs by a pixel at the border",
)
WITHOUT_RPN = "it has no region proposal network: ours keeps its random start, so only given boxes can be segmented"


def plan(request: ImportRequest) -> Plan:
    """How a file of Detectron's becomes a model.

    Raises:
        BadInput: it is damaged, or none of the supported models.
    """
    path = request.path
    content = read(path)
    blobs = tensors_of(path, content, keys=("blobs",))
    text = content.get("cfg") if isinstance(content, Mapping) else None
    cfg = parse(text, path) if isinstance(text, str) else None
    refuse(path, blobs, DETECTRON_UNSUPPORTED)
    blobs, settled = _prepared(blobs)
    total = class_count(path, blobs, "cls_score_w")
    settings = _settings(path, blobs, cfg, total)
    has_rpn = any("rpn_cls_logits" in name for name in blobs)
    if not has_rpn and not request.without_rpn:
        raise BadInput(f"{path}: has no region proposal network; with --without-rpn it can segment given boxes")
    order = tables.ClassOrder(total, 0, tuple(range(1, total)), True, leaves=tables.BACKGROUND)
    embedding = _embedding(path, blobs, cfg, settings, total)
    return Plan(
        settings=settings,
        labels=label_names.choose(request.classes, total - 1, path),
        tensors=blobs,
        table=functools.partial(tables.detectron, order=order, embedding=embedding),
        rules=DETECTRON_RULES,
        settled=settled,
        embedding=blobs[embedding][1:] if embedding else None,
        may_stay=() if has_rpn else ("rpn/",),
        anchor_scores=next((name for name in blobs if re.fullmatch(r"rpn_cls_logits(_fpn2)?_w", name)), ""),
        notes=(*DETECTRON_NOTES, *_samples(cfg)[1], *(() if has_rpn else (WITHOUT_RPN,))),
    )


def _prepared(blobs: Tensors) -> tuple[Tensors, dict[str, list[str]]]:
    """Blobs as the table names them, and those that went into others on the way, by reason."""
    blobs, settled = dict(blobs), {}
    restored = [name.removesuffix(BACKUP) for name in blobs if name.endswith(BACKUP)]
    if restored:
        settled[RESTORED] = [name for name in restored if name in blobs]
        for name in restored:
            blobs[name] = blobs.pop(name + BACKUP)
    # Detectron, too, takes fcn1_w where _[mask]_fcn1_w is missing.
    for name in [name for name in blobs if re.fullmatch(r"fcn\d_[wb]", name) and f"_[mask]_{name}" not in blobs]:
        blobs[f"_[mask]_{name}"] = blobs.pop(name)
    folded = [name for name in blobs if re.fullmatch(r"(conv1|res\d_\d+_branch(1|2[abc]))_b", name)]
    for name in folded:
        conv = name.removesuffix("_b")
        norm = "res_conv1_bn" if conv == "conv1" else f"{conv}_bn"
        if f"{norm}_s" in blobs and f"{norm}_b" in blobs and blobs[name].shape == blobs[f"{norm}_s"].shape:
            blobs[f"{norm}_b"] = blobs[f"{norm}_b"] + blobs[f"{norm}_s"] * blobs.pop(name)
            settled.setdefault(DETECTRON_FOLDED, []).append(name)
    return blobs, settled


def _settings(path: Path, blobs: Tensors, cfg: JsonView | None, total: int) -> Json:
    neck = "fpn" if "fpn_inner_res2_2_sum_lateral_w" in blobs else "c4"
    name = resnet_name(path, blobs, r"res(\d)_(\d+)_branch2b_w")
    settings: Json = {
        "family": "faster_rcnn",
        "backbone": {
            "name": name,
            "neck": neck,
            "norm_epsilon": 1e-5,
            "stride_in_1x1": look_up(cfg, "RESNETS.STRIDE_1X1", not name.startswith("resnext")),
        },
        "input": {
            "short_side": look_up(cfg, "TEST.SCALE", 800),
            "long_side": look_up(cfg, "TEST.MAX_SIZE", 1333),
            "channel_order": "bgr",
            "pixel_mean": _numbers(path, cfg, "PIXEL_MEANS", 3) or [102.9801, 115.9465, 122.7717],
            "pixel_std": [1.0, 1.0, 1.0],
        },
        "anchors": {"rounding": "detectron", "order": "ratio_major"},
        "rpn": {
            "pre_nms_train": 2000,
            "post_nms_train": 2000,
            "pre_nms_test": 1000,
            "post_nms_test": 1000,
            "min_size": 0.0,
            "smooth_l1_beta": 1 / 9,
            "normaliser": "fixed",
            "ignore_straddling": True,
        },
        "roi": {"aligned": False, "samples": _samples(cfg)[0], "level_epsilon": "detectron"},
        "box": {
            "delta_weights": _delta_weights(path, cfg),
            "smooth_l1_beta": 1.0,
            "class_agnostic": total > 2 and len(tensor(path, blobs, "bbox_pred_w", 2)) == 8,
        },
        "detections": {
            "score": look_up(cfg, "TEST.SCORE_THRESH", 0.05),
            "nms_iou": look_up(cfg, "TEST.NMS", 0.5),
            "limit": look_up(cfg, "TEST.DETECTIONS_PER_IM", 100),
            "paste": "integer",
        },
    }
    if neck == "fpn":
        channels = settings["backbone"]["fpn_channels"] = len(blobs["fpn_inner_res2_2_sum_lateral_w"])
        settings["roi"]["box_size"] = map_side(path, blobs, "fc6_w", channels)
        settings["box"] |= {"width": len(blobs["fc6_w"]), "layers": counted(blobs, "fc{}_w", first=6)}
    else:
        settings["anchors"]["sizes"] = [[32.0, 64.0, 128.0, 256.0, 512.0]]
        settings["roi"] |= {"box_size": 14, "mask_size": 14}
        settings["rpn"] |= {"pre_nms_train": 12000, "pre_nms_test": 6000}
    if "conv5_mask_w" in blobs:
        _set_masks(path, blobs, cfg, settings)
    return settings


def _samples(cfg: JsonView | None) -> tuple[int, tuple[str, ...]]:
    """RoIAlign's samples along each side of a bin, and a note where the one setting cannot be true to the file."""
    of_boxes = max(look_up(cfg, "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO", 2), 0)
    of_masks = max(look_up(cfg, "MRCNN.ROI_XFORM_SAMPLING_RATIO", of_boxes), 0)
    samples = of_boxes if of_boxes in (0, 1, 2) else 2
    if of_boxes == of_masks == samples:
        return samples, ()
    there = f"{of_boxes} for boxes and {of_masks} for masks (0: as many as a bin is cells long)"
    return samples, (f"RoIAlign's samples along each side of a bin are {there} at the source, here {samples} for both",)


def _numbers(path: Path, cfg: JsonView | None, key: str, count: int) -> list[float] | None:
    """Numbers of the configuration, which nests those of the pixels twice; None if it has none."""
    value = look_up(cfg, key, [])
    while len(value) == 1 and isinstance(value[0], list):
        (value,) = value
    if not value:
        return None
    if len(value) != count or not all(isinstance(number, (int, float)) for number in value):
        raise BadInput(f"{path}: cfg: {key}: expected {count} numbers, found {value}")
    return [float(number) for number in value]


def _delta_weights(path: Path, cfg: JsonView | None) -> list[float]:
    """The scales of the deltas. A configuration from before there was a setting means ones; none means the default."""
    before = [10.0, 10.0, 5.0, 5.0] if cfg is None else [1.0, 1.0, 1.0, 1.0]
    return _numbers(path, cfg, "MODEL.BBOX_REG_WEIGHTS", 4) or before


def _set_masks(path: Path, blobs: Tensors, cfg: JsonView | None, settings: Json) -> None:
    """Sets the mask head's settings from the blobs."""
    if settings["backbone"]["neck"] == "fpn" and look_up(cfg, "MRCNN.DILATION", 1) != 1:
        raise BadInput(f"{path}: cfg: MRCNN.DILATION: a dilated mask head cannot be imported")
    channels = tensor(path, blobs, "conv5_mask_w", 4).shape[1]
    mask = settings["mask"] = {"convs": counted(blobs, "_[mask]_fcn{}_w", first=1), "channels": channels}
    if "mask_mlp_logits_raw_w" in blobs:
        side = map_side(path, blobs, "mask_mlp_logits_raw_w", channels)
        mask["mlp_branch"] = "reference"
        settings["roi"]["mask_size"] = side // 2
    if "mask_fcn_logits_w_flat_w" in blobs:
        settings["family"] = "mask_x_rcnn"
        settings["transfer"] = _transfer(path, blobs, cfg, settings)
        return
    settings["family"] = "mask_rcnn"
    outputs = len(tensor(path, blobs, "mask_fcn_logits_w", 4))
    mask["outputs"] = "agnostic" if outputs == 1 else "specific"


def _transfer(path: Path, blobs: Tensors, cfg: JsonView | None, settings: Json) -> Json:
    """Reads T's settings from the blobs' shapes: its layers from their names, its input from the first one's width."""
    hidden = counted(blobs, "bbox2mask_mlp_l{}_w", first=1)
    width = tensor(path, blobs, "bbox2mask_mlp_l1_w" if hidden else "mask_fcn_logits_w_flat_w", 2).shape[1]
    features = settings["box"].get("width", 2048)
    reads = {features: "cls", 4 * features: "box", 5 * features: "cls_box"}.get(width, "embedding")
    return {
        "input": reads,
        "layers": hidden + 1,
        "activation": "leaky_relu" if look_up(cfg, "MRCNN.BBOX2MASK.USE_LEAKYRELU", True) else "relu",
        "stop_gradient": look_up(cfg, "MRCNN.BBOX2MASK.STOP_DET_W_GRAD", True),
    }


def _embedding(path: Path, blobs: Tensors, cfg: JsonView | None, settings: Json, total: int) -> str:
    """The blob with the table that T reads; empty if it reads none."""
    transfer = settings.get("transfer", {})
    if transfer.get("input") != "embedding":
        return ""
    tables = [name for name in blobs if re.fullmatch(TABLES, name)]
    wanted = look_up(cfg, "MRCNN.BBOX2MASK.PRETRAINED_EMBED_NAME", "")
    if wanted in blobs:
        tables = [wanted]
    if len(tables) != 1:
        found = f"the tables {' and '.join(tables)}, of which its cfg names none" if tables else "no table"
        raise BadInput(
            f"{path}: T reads neither rows of the classifier nor of the boxes, expected a table of embeddings, "
            f"found {found}"
        )
    rows = len(tensor(path, blobs, tables[0], 2))
    if rows != total:
        raise BadInput(f"{path}: {tables[0]}: expected {total} rows, one a class, found {rows}")
    return tables[0]
