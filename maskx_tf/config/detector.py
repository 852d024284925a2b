"""The parts of the `model` section that every family shares: from the image to the boxes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from maskx_tf.config.fields import Count, Flag, Float, Fraction, Int, Positive, Section, Text, impossible


class InputConfig(Section):
    """How an image becomes the network's input."""

    canvas: tuple[Count, Count] = Field(
        default=(1344, 1344),
        description="Height and width of the network's input in pixels; the resized image lies at the top left of it.",
    )
    short_side: Count = Field(
        default=800,
        description="An image is resized to the largest size whose short side has at most this many pixels, "
        "whose long side has at most long_side, and which fits on the canvas.",
    )
    long_side: Count = Field(default=1333, description="The limit of the resized image's long side, in pixels.")
    rounding: Literal["exact", "torchvision"] = Field(
        default="exact",
        description="How the sides of the resized image become whole numbers. exact: the exact product is rounded"
        " down. torchvision: the product in float64 is rounded down, which sometimes makes a side one"
        " pixel shorter.",
    )
    pixel_mean: tuple[Float, Float, Float] = Field(
        default=(123.675, 116.28, 103.53),
        description="Subtracted from each channel, in units of 0 to 255, in the order of channel_order.",
    )
    pixel_std: tuple[Positive, Positive, Positive] = Field(
        default=(58.395, 57.12, 57.375),
        description="The result is divided by this, in units of 0 to 255, in the order of channel_order.",
    )
    channel_order: Literal["rgb", "bgr"] = Field(
        default="rgb", description="The order in which the network reads the colours."
    )

    @model_validator(mode="after")
    def _sides(self) -> InputConfig:
        if self.short_side > self.long_side:
            raise impossible("short_side", f"at most long_side, which is {self.long_side}", self.short_side)
        return self


class BackboneConfig(Section):
    """The convolutional features, and the neck that makes one map or a pyramid of them."""

    name: Literal[
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "resnext152_32x8d",
        "mobilenet_v2",
        "keras_resnet50",
        "keras_resnet101",
        "resnet_small",
    ] = Field(
        default="resnet50",
        description="The network. Those named keras_* and mobilenet_v2 are Keras' own; resnet_small is ours, four "
        "bottlenecks of half the width, for experiments on small images.",
    )
    norm: Literal["frozen_batch", "fixed_batch", "batch", "group"] = Field(
        default="frozen_batch",
        description="Normalisation: batch norm with fixed statistics and scales, with fixed statistics and scales that "
        "learn (FCIS), batch norm that learns, or GroupNorm (32 groups).",
    )
    norm_epsilon: Positive = Field(default=1e-5, description="Added to the variance under the square root.")
    stride_in_1x1: Flag = Field(
        default=False,
        description="Bottlenecks halve the map in their first 1x1 convolution (Detectron's and Keras' ResNet) "
        "rather than in their 3x3 (torchvision).",
    )
    stem_pool: Literal["padded", "ceil"] = Field(
        default="padded",
        description="The windows of the stem's 3x3 maximum begin one pixel before the map (torchvision), or at its "
        "first pixel (Caffe, FCIS).",
    )
    non_local: Flag = Field(
        default=False,
        description="Adds a non-local block before the last bottleneck of res4, in which cells read the whole map.",
    )
    weights: Text = Field(
        default="none",
        description="Initial weights of a new model's backbone, for Keras' own networks: none (random), imagenet "
        "(downloaded by Keras), or the path of a headless .weights.h5 of Keras. For other networks, "
        "import a checkpoint.",
    )
    frozen_stages: Int = Field(
        default=2,
        ge=0,
        le=5,
        description="Number of stages that do not learn. 1: the stem. 2: also res2. 5: all up to res5.",
    )
    neck: Literal["fpn", "c4", "c5", "dc5"] = Field(
        default="fpn",
        description="fpn: P2 to P6. c4: res4, stride 16, with res5 in the box head. c5: res5, stride 32. "
        "dc5: res5 dilated, stride 16.",
    )
    fpn_channels: Count = Field(default=256, description="Channels of each map of the pyramid.")

    @model_validator(mode="after")
    def _combination(self) -> BackboneConfig:
        of_keras = self.name.startswith(("keras_", "mobilenet_"))
        if self.norm in ("group", "fixed_batch") and of_keras:
            raise impossible("norm", f"frozen_batch or batch, for {self.name} has batch norm built in", self.norm)
        if self.neck in ("c4", "dc5") and of_keras:
            raise impossible("neck", f"fpn or c5, for {self.name} comes as a whole from Keras", self.neck)
        if self.name == "resnet_small" and self.neck == "c4":
            raise impossible("neck", "another than c4, because its box head is of a full ResNet's width", self.neck)
        for key in ("norm_epsilon", "stride_in_1x1", "stem_pool", "non_local"):
            found = getattr(self, key)
            if of_keras and found != type(self).model_fields[key].default:
                raise impossible(key, f"nothing, for {self.name} has its own", found)
        if self.weights != "none" and not of_keras:
            raise impossible("weights", f"none, because Keras has no {self.name}: import a checkpoint", self.weights)
        return self


class AnchorsConfig(Section):
    """The reference boxes of the region proposal network."""

    sizes: tuple[tuple[Positive, ...], ...] = Field(
        default=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
        min_length=1,
        description="For each map, finest first, the square roots of the anchors' areas in pixels.",
    )
    ratios: tuple[Positive, ...] = Field(
        default=(0.5, 1.0, 2.0), min_length=1, description="Height divided by width, for each anchor of a size."
    )
    rounding: Literal["none", "torchvision", "detectron"] = Field(
        default="none",
        description="none (as detectron2): exact, centred at the cell's corner. torchvision: the same, rounded. "
        "detectron: whole pixels, centred in the cell.",
    )
    order: Literal["ratio_major", "size_major"] = Field(
        default="ratio_major", description="The index that varies slowest among the anchors of one cell."
    )

    @field_validator("sizes")
    @classmethod
    def _same_number(cls, sizes: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if len({len(level) for level in sizes}) > 1 or not sizes[0]:
            raise impossible("", "the same number of sizes, at least one, for every map", [list(s) for s in sizes])
        return sizes


class RpnConfig(Section):
    """The region proposal network: its targets, its losses, and what it passes on."""

    pre_nms_train: Count = Field(default=2000, description="Boxes kept by score per map before NMS, in training.")
    pre_nms_test: Count = Field(default=1000, description="Boxes kept by score per map before NMS, at inference.")
    post_nms_train: Count = Field(default=1000, description="Proposals per image after NMS, in training.")
    post_nms_test: Count = Field(default=1000, description="Proposals per image after NMS, at inference.")
    nms_iou: Fraction = Field(
        default=0.7, description="A box that overlaps a better one by more than this IoU is dropped."
    )
    min_size: Float = Field(default=0.0, ge=0, description="Proposals with a shorter side, in pixels, are dropped.")
    positive_iou: Fraction = Field(default=0.7, description="An anchor with at least this IoU is an object.")
    negative_iou: Fraction = Field(default=0.3, description="An anchor with less IoU than this is background.")
    samples: Count = Field(default=256, description="Anchors per image in the losses.")
    positive_fraction: Fraction = Field(
        default=0.5, description="The largest share of object anchors among the samples."
    )
    ignore_straddling: Flag = Field(
        default=False, description="Anchors that cross the image's border take no part in training (Detectron)."
    )
    smooth_l1_beta: Float = Field(
        default=1 / 9, ge=0, description="Where the box loss turns from square to linear, in units of deltas; 0 is L1."
    )
    normaliser: Literal["sampled", "fixed"] = Field(
        default="sampled",
        description="The losses are divided by the number of sampled anchors, or by samples times images.",
    )

    @model_validator(mode="after")
    def _thresholds(self) -> RpnConfig:
        if self.negative_iou > self.positive_iou:
            raise impossible("negative_iou", f"at most positive_iou, which is {self.positive_iou}", self.negative_iou)
        return self


class RoiConfig(Section):
    """How features are read inside a box."""

    op: Literal["align", "pool", "warp"] = Field(
        default="align", description="RoIAlign, RoIPool (always a maximum) or RoIWarp."
    )
    aligned: Flag = Field(
        default=True,
        description="RoIAlign shifts by half a pixel, as detectron2 does; torchvision and Detectron do not.",
    )
    samples: Literal[0, 1, 2] = Field(
        default=2,
        description="Samples along each side of a bin, for align and warp; 0: the length of the bin in cells, rounded "
        "up, which is the default of detectron2 and Detectron.",
    )
    reduce: Literal["average", "max"] = Field(
        default="average", description="How the samples of a bin become one value, for align and warp."
    )
    level_epsilon: Literal["torchvision", "detectron", "detectron2"] = Field(
        default="detectron2", description="Where the small number is added when a pyramid level is chosen."
    )
    box_size: Count = Field(default=7, description="Bins along each side for the box head; 14 is usual with neck c4.")
    mask_size: Count = Field(
        default=14,
        description="Bins along each side for the mask head; masks are twice that, with neck c4 only as large.",
    )
    keypoint_size: Count = Field(
        default=14, description="Bins along each side for the keypoint head; heat maps are four times that."
    )

    @model_validator(mode="after")
    def _sampling(self) -> RoiConfig:
        if self.samples == 0 and self.reduce != "average":
            raise impossible("reduce", "average, because samples is 0", self.reduce)
        return self


class BoxConfig(Section):
    """The box head: its layers, its targets and its loss."""

    width: Count = Field(default=1024, description="Width of each fully connected layer (neck c4 uses res5 instead).")
    layers: Int = Field(
        default=2,
        ge=0,
        description="Number of fully connected layers; 0: scores and boxes are computed from the features directly.",
    )
    class_agnostic: Flag = Field(default=False, description="One box for all classes instead of one for each.")
    delta_weights: tuple[Positive, Positive, Positive, Positive] = Field(
        default=(10.0, 10.0, 5.0, 5.0), description="Scales of the deltas dx, dy, dw, dh."
    )
    smooth_l1_beta: Float = Field(
        default=1 / 9, ge=0, description="Where the box loss turns from square to linear, in units of deltas; 0 is L1."
    )
    rois: Count = Field(default=512, description="Boxes per image in the losses.")
    positive_fraction: Fraction = Field(default=0.25, description="The largest share of object boxes among these.")
    positive_iou: Fraction = Field(default=0.5, description="A box with at least this IoU is an object.")
    background_iou: tuple[Fraction, Fraction] = Field(
        default=(0.0, 0.5), description="A box is background when its IoU is at least the first and below the second."
    )

    @model_validator(mode="after")
    def _thresholds(self) -> BoxConfig:
        low, high = self.background_iou
        if not low < high <= self.positive_iou:
            expected = f"two ascending numbers of at most positive_iou, which is {self.positive_iou}"
            raise impossible("background_iou", expected, list(self.background_iou))
        return self
