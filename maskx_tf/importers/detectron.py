"""Faster, Mask and Mask^X R-CNN of Detectron and seg_every_thing, with ResNet or ResNeXt and FPN or C4."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from maskx_tf.config.model import MAPS
from maskx_tf.errors import BadInput
from maskx_tf.files import Json, JsonView
from maskx_tf.importers import labels as label_names
from maskx_tf.importers import tables
from maskx_tf.importers.detectron_cfg import ignored, look_up, numbers, parse
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
MASKS = "conv5_mask_w"  # of every mask head
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
        notes=(
            *DETECTRON_NOTES,
            *_pooling(cfg, MASKS in blobs)[1],
            *ignored(cfg),
            *(() if has_rpn else (WITHOUT_RPN,)),
        ),
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
            "pixel_mean": numbers(path, cfg, "PIXEL_MEANS", 3) or [102.9801, 115.9465, 122.7717],
            "pixel_std": [1.0, 1.0, 1.0],
        },
        "anchors": {"rounding": "detectron", "order": "ratio_major"} | _anchors(path, cfg, neck),
        "rpn": _proposals(cfg, neck)
        | {
            "min_size": 0.0,
            "smooth_l1_beta": 1 / 9,
            "normaliser": "fixed",
            "ignore_straddling": True,
        },
        "roi": {"aligned": False, "level_epsilon": "detectron"} | _pooling(cfg, MASKS in blobs)[0],
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
        settings["roi"] |= {"box_size": 14, "mask_size": 14}
    if MASKS in blobs:
        _set_masks(path, blobs, cfg, settings)
    return settings


def _anchors(path: Path, cfg: JsonView | None, neck: str) -> Json:
    """The sizes and ratios of the anchors."""
    if neck == "fpn":
        first = look_up(cfg, "FPN.RPN_ANCHOR_START_SIZE", 32.0)
        sizes, ratios = [[first * 2**level] for level in range(5)], numbers(path, cfg, "FPN.RPN_ASPECT_RATIOS")
    else:
        sizes = [numbers(path, cfg, "RPN.SIZES") or [32.0, 64.0, 128.0, 256.0, 512.0]]
        ratios = numbers(path, cfg, "RPN.ASPECT_RATIOS")
    return {"sizes": sizes, "ratios": ratios or [0.5, 1.0, 2.0]}


def _proposals(cfg: JsonView | None, neck: str) -> Json:
    """How many proposals there are before and after their suppression, and its threshold."""
    settings: Json = {"nms_iou": look_up(cfg, "TEST.RPN_NMS_THRESH", 0.7)}
    for phase, before, after in (("train", 12000, 2000), ("test", 6000, 1000)):
        before = look_up(cfg, f"{phase.upper()}.RPN_PRE_NMS_TOP_N", before if neck == "c4" else after)
        after = look_up(cfg, f"{phase.upper()}.RPN_POST_NMS_TOP_N", after)
        settings |= {f"pre_nms_{phase}": before, f"post_nms_{phase}": min(after, before * MAPS[neck])}
    return settings


def _pooling(cfg: JsonView | None, masks: bool) -> tuple[Json, tuple[str, ...]]:
    """How regions are pooled, and notes where the one setting for boxes and masks cannot be true to the file."""
    method, of_boxes = _pooling_of(cfg, "FAST_RCNN", ("RoIAlign", 2))
    mask_method, of_masks = _pooling_of(cfg, "MRCNN", (method, of_boxes)) if masks else (method, of_boxes)
    samples = of_boxes if of_boxes in (0, 1, 2) else 2
    notes = []
    if mask_method != method:
        notes.append(f"boxes are pooled by {method} and masks by {mask_method} at the source, here both by {method}")
    elif method == "RoIAlign" and not of_boxes == of_masks == samples:
        there = f"{of_boxes} for boxes and {of_masks} for masks (0: as many as a bin is cells long)"
        notes.append(f"RoIAlign's samples along each side of a bin are {there} at the source, here {samples} for both")
    return {"op": "align" if method == "RoIAlign" else "pool", "samples": samples}, tuple(notes)


def _pooling_of(cfg: JsonView | None, section: str, default: tuple[str, int]) -> tuple[str, int]:
    """The method of a head, and its samples along each side of a bin."""
    method = look_up(cfg, f"{section}.ROI_XFORM_METHOD", default[0])
    return method, max(look_up(cfg, f"{section}.ROI_XFORM_SAMPLING_RATIO", default[1]), 0)


def _delta_weights(path: Path, cfg: JsonView | None) -> list[float]:
    """The scales of the deltas. A configuration from before there was a setting means ones; none means the default."""
    before = [10.0, 10.0, 5.0, 5.0] if cfg is None else [1.0, 1.0, 1.0, 1.0]
    return numbers(path, cfg, "MODEL.BBOX_REG_WEIGHTS", 4) or before


def _set_masks(path: Path, blobs: Tensors, cfg: JsonView | None, settings: Json) -> None:
    """Sets the mask head's settings from the blobs."""
    if settings["backbone"]["neck"] == "fpn" and look_up(cfg, "MRCNN.DILATION", 1) != 1:
        raise BadInput(f"{path}: cfg: MRCNN.DILATION: a dilated mask head cannot be imported")
    channels = tensor(path, blobs, MASKS, 4).shape[1]
    mask = settings["mask"] = {"convs": counted(blobs, "_[mask]_fcn{}_w", first=1), "channels": channels}
    if "mask_mlp_logits_raw_w" in blobs:
        side = map_side(path, blobs, "mask_mlp_logits_raw_w", channels)
        mask["mlp_branch"] = "reference"
        settings["roi"]["mask_size"] = side if settings["backbone"]["neck"] == "c4" else side // 2
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
    found = [name for name in blobs if re.fullmatch(TABLES, name)]
    wanted = look_up(cfg, "MRCNN.BBOX2MASK.PRETRAINED_EMBED_NAME", "")
    if wanted in blobs:
        found = [wanted]
    if len(found) != 1:
        names = f"the tables {' and '.join(found)}, of which its cfg names none" if found else "no table"
        raise BadInput(
            f"{path}: T reads neither rows of the classifier nor of the boxes, expected a table of embeddings, "
            f"found {names}"
        )
    rows = len(tensor(path, blobs, found[0], 2))
    if rows != total:
        raise BadInput(f"{path}: {found[0]}: expected {total} rows, one a class, found {rows}")
    return found[0]
