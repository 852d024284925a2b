"""The `model.fcis` section: position-sensitive maps, and what regions make of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from maskx_tf.config.fields import Count, Flag, Float, Fraction, Section, impossible, refuse_unused

OF_MASKS = ("mask_weight", "min_side", "merge_iou", "threshold", "prebinarize", "voters")


class FcisConfig(Section):
    """Family fcis: how maps become scores and masks, and how regions vote for the masks of detections."""

    scores: Literal["joint", "separate", "agnostic", "average"] = Field(
        default="joint",
        description="joint: inside and outside maps give scores and masks (FCIS). separate: half of the maps give"
        " scores, the others masks. agnostic: one map shared by all classes gives masks "
        "(InstanceFCN), the others scores. average: the maps give only scores, no masks (R-FCN).",
    )
    group: Count = Field(default=7, description="Cells of maps along each side of a region (k); 1: no positions.")
    size: Count = Field(default=21, description="Bins along each side of a region, and the side of its mask.")
    pooling: Literal["cells", "bilinear"] = Field(
        default="cells",
        description="cells: averages of whole cells in rounded boxes, as in the reference. bilinear: averages of "
        "samples.",
    )
    channels: Count = Field(default=1024, description="Channels of the 1x1 convolution before the maps.")
    rpn_channels: Count = Field(default=512, description="Channels of the proposal network's 3x3 convolution.")
    mask_weight: Annotated[Float, Field(gt=0)] = Field(
        default=10.0, description="Weight of the mask loss: 10 in the reference's code, 1 in the paper."
    )
    ohem: Flag = Field(
        default=False,
        description="Trains on the box.rois proposals with the largest losses, not on random ones.",
    )
    passes: Literal[1, 2] = Field(
        default=2,
        description="2: after proposals are moved by the box regression, the maps are read again in the new "
        "boxes. R-FCN has 1, and moves its boxes at the end.",
    )
    min_side: Annotated[Float, Field(ge=0)] = Field(
        default=2.0, description="Regions with a shorter side, in pixels, are no detections and do not vote."
    )
    merge_iou: Fraction = Field(
        default=0.5, description="Regions vote for detections that they overlap by at least this IoU."
    )
    threshold: Annotated[Float, Field(gt=0, le=0.5)] = Field(
        default=0.4,
        description="A pixel belongs to the mask if its probability, or its share of the votes, is at least this.",
    )
    prebinarize: Flag = Field(
        default=True, description="Regions vote for pixels (the reference's code), not with probabilities (the paper)."
    )
    voters: Literal["all", "own_class"] = Field(
        default="all",
        description="all: every region votes. own_class: a region votes only if its best class is that of"
        " the detection.",
    )

    @model_validator(mode="after")
    def _combination(self) -> FcisConfig:
        if self.size % self.group:
            raise impossible("size", f"a multiple of group, which is {self.group}", self.size)
        if self.scores == "average" and self.passes != 1:
            raise impossible("passes", "1, because scores is average", self.passes)
        if self.scores == "average":
            refuse_unused(self, "nothing, because scores is average: the model has no masks", keys=OF_MASKS)
        return self
