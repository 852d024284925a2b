"""The sections of what adds to detections: `model.mask`, `model.transfer` and `model.keypoint`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from maskx_tf.config.fields import Count, Flag, Section, Text, impossible, refuse_unused


class MaskConfig(Section):
    """The mask head."""

    head: Literal["fcn", "mlp"] = Field(
        default="fcn", description="fcn: convolutions, then a deconvolution. mlp: fully connected layers."
    )
    convs: Annotated[int, Field(strict=True, ge=0)] = Field(
        default=4, description="Number of 3x3 convolutions of the fcn."
    )
    channels: Count = Field(default=256, description="Channels of the fcn's convolutions and its deconvolution.")
    trunk: Literal["plain", "hourglass", "residual"] = Field(
        default="plain",
        description="The convolutions of the fcn; the last two are not in the papers, and are for masks of 64 x "
        "64 (roi.mask_size 32). hourglass: down to a quarter of the region's size and up again. "
        "residual: blocks of two convolutions.",
    )
    pixels: Flag = Field(
        default=False, description="The fcn also reads the region's pixels. This is not in the papers."
    )
    margin: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.0,
        description="How far the mask head's region extends beyond each side of a box, as a share of the box's "
        "width or height.",
    )
    mlp_layers: Annotated[int, Field(strict=True, ge=0)] = Field(default=2, description="Hidden layers of head mlp.")
    mlp_side: Count | None = Field(
        default=None, description="Side of the masks of head mlp; null: twice roi.mask_size, with neck c4 half of that."
    )
    mlp_width: Count = Field(default=1024, description="Width of the hidden layers of head mlp.")
    outputs: Literal["specific", "agnostic"] = Field(
        default="specific",
        description="A mask for each class, or one for all. Family mask_x_rcnn has one for each, by transfer.",
    )
    activation: Literal["sigmoid", "softmax"] = Field(
        default="sigmoid",
        description="sigmoid: each mask by itself. softmax: the classes and the background compete for each pixel.",
    )
    regions: Literal["proposals", "truth", "jittered"] = Field(
        default="proposals",
        description="The regions in which the mask head learns. proposals: the proposals that are foreground. "
        "truth: the true boxes. jittered: the true boxes with moved edges. The last two are not in "
        "the papers.",
    )
    rois: Count | None = Field(
        default=None,
        description="Regions per image in which the mask head learns; null, as in the papers: as many as can be "
        "foreground for the box head.",
    )
    jitter: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.1, description="For regions jittered: how far edges are moved, as a share of the box's side."
    )
    box_losses: tuple[Literal["projection", "pairwise", "points", "teacher"], ...] = Field(
        default=(),
        description="Losses for instances without a mask, which are not in the papers. projection: the mask "
        "extends to the sides of its box. pairwise: neighbouring pixels of similar colour are both "
        "mask, or neither. points: the labelled points of the data. teacher: the masks of the "
        "weights' running average (train.ema).",
    )
    mlp_branch: Literal["none", "reference", "lean"] = Field(
        default="none",
        description="Adds a class-agnostic mask from fully connected layers to the fcn's mask. reference: one "
        "layer on the deconvolved map (157 million weights at full size). lean: a smaller branch of "
        "our own.",
    )

    @model_validator(mode="after")
    def _combination(self) -> MaskConfig:
        if self.regions != "jittered" and self.jitter != type(self).model_fields["jitter"].default:
            raise impossible("jitter", f"nothing, because regions is {self.regions}", self.jitter)
        if self.head != "mlp":
            refuse_unused(self, f"nothing, because head is {self.head}", keys=["mlp_layers"])
        if self.mlp_side is not None and self.head != "mlp":
            raise impossible("mlp_side", f"null, because head is {self.head}", self.mlp_side)
        if self.activation == "softmax" and self.head == "mlp":
            raise impossible("activation", "sigmoid, because head is mlp", self.activation)
        if self.trunk != "plain" and self.head == "mlp":
            raise impossible("trunk", "plain, because head is mlp", self.trunk)
        if self.pixels and self.head == "mlp":
            raise impossible("pixels", "false, because head is mlp", self.pixels)
        if self.box_losses and self.activation == "softmax":
            raise impossible("box_losses", "none, because activation is softmax", list(self.box_losses))
        if len(set(self.box_losses)) < len(self.box_losses):
            raise impossible("box_losses", "no loss twice", list(self.box_losses))
        if self.activation == "softmax" and self.outputs == "agnostic":
            raise impossible("activation", "sigmoid, for a class-agnostic mask has no rivals", self.activation)
        if self.mlp_branch != "none" and self.head == "mlp":
            raise impossible("mlp_branch", "none, for the branch is added to head fcn", self.mlp_branch)
        if self.mlp_branch != "none" and self.activation == "softmax":
            raise impossible("mlp_branch", "none, because softmax cancels what all classes share", self.mlp_branch)
        return self


class KeypointConfig(Section):
    """The keypoint head, which any family but fcis may have."""

    use: Flag = Field(default=False, description="The model has a keypoint head.")
    names: tuple[Text, ...] = Field(
        default=(), description="The keypoints in the order of their indices; empty: those of the data."
    )
    skeleton: tuple[tuple[Text, Text], ...] = Field(
        default=(), description="Pairs of keypoints between which a line is drawn; empty: those of the data."
    )
    flip: tuple[tuple[Text, Text], ...] = Field(
        default=(),
        description="Pairs of keypoints that change places in a mirrored image, such as left_eye and right_eye; empty: "
        "those of the data.",
    )
    classes: tuple[Text, ...] = Field(default=(), description="The classes that have keypoints; empty: all.")
    convs: Count = Field(default=8, description="Number of 3x3 convolutions.")
    channels: Count = Field(default=512, description="Channels of the convolutions.")
    normaliser: Literal["visible", "fixed"] = Field(
        default="visible",
        description="The loss is divided by the keypoints that lie in their region (torchvision, detectron2), or by "
        "the keypoints of all regions that can be foreground (Detectron, which multiplies it by 4: "
        "train.keypoint_weight).",
    )
    score: Literal["logit", "probability"] = Field(
        default="logit",
        description="The score of a keypoint: its heat map's interpolated logit at the peak (torchvision), or the "
        "peak's share of the softmax over the map, which may exceed 1 (detectron2).",
    )

    @model_validator(mode="after")
    def _pairs(self) -> KeypointConfig:
        if not self.use:
            refuse_unused(self, "nothing, because use is false")
        if len(set(self.names)) < len(self.names):
            raise impossible("names", "no name twice", list(self.names))
        for key, pairs in (("skeleton", self.skeleton), ("flip", self.flip)):
            for name in (name for pair in pairs for name in pair):
                if name not in self.names:
                    raise impossible(key, "pairs of names", name)
        swapped = [name for pair in self.flip for name in pair]
        if len(set(swapped)) < len(swapped):
            raise impossible("flip", "no name twice", swapped)
        return self


class TransferConfig(Section):
    """The function T, which computes the mask weights of a class from its box weights (family mask_x_rcnn)."""

    input: Literal["cls", "box", "cls_box", "embedding"] = Field(
        default="cls_box",
        description="What T reads for each class: its row of the classifier, its rows of the box regressor, both,"
        " or a row of a fixed table.",
    )
    embedding: Text | None = Field(
        default=None, description="Path of the table for input embedding: a .npy file with one row per class."
    )
    layers: Literal[1, 2, 3] = Field(default=2, description="Number of fully connected layers.")
    activation: Literal["relu", "leaky_relu"] = Field(
        default="leaky_relu", description="The activation between the layers; leaky_relu has slope 0.1."
    )
    init: Literal["reference", "small"] = Field(
        default="reference",
        description="Initial weights. reference: Gaussian, scaled by fan-out. small: the same, but with standard "
        "deviation 0.01 in the first layer.",
    )
    unit_rms: Flag = Field(
        default=False, description="Each part of the input (cls, box) is scaled to a root mean square of one."
    )
    stop_gradient: Flag = Field(default=True, description="The mask loss does not change the box head's weights.")

    @model_validator(mode="after")
    def _table(self) -> TransferConfig:
        if self.input == "embedding" and self.embedding is None:
            raise impossible("embedding", "the path of a .npy table, because input is embedding", None)
        if self.input != "embedding" and self.embedding is not None:
            raise impossible("embedding", f"null, because input is {self.input}", self.embedding)
        return self
