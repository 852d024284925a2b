"""The `model` section. It is stored with every checkpoint, so it holds each convention in which the sources differ."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from maskx_tf.config.branches import KeypointConfig, MaskConfig, TransferConfig
from maskx_tf.config.detector import AnchorsConfig, BackboneConfig, BoxConfig, InputConfig, RoiConfig, RpnConfig
from maskx_tf.config.fcis import FcisConfig
from maskx_tf.config.fields import Count, Fraction, Positive, Section, Text, impossible, refuse_unused

# The canvas must be a multiple of the coarsest stride that is halved exactly. P6 is a subsampling of P5, which may
# round up, so FPN needs 32 and not 64: 800 x 1216 is a usual size.
STRIDES = {"fpn": 32, "c5": 32, "c4": 16, "dc5": 16}
MAPS = {"fpn": 5, "c5": 1, "c4": 1, "dc5": 1}  # fpn: P2..P6


class DetectionsConfig(Section):
    """Which candidates become detections, and how their masks are drawn."""

    score: Fraction = Field(default=0.05, description="Detections with this score or less are dropped.")
    nms_iou: Fraction = Field(
        default=0.5, description="A detection that overlaps a better one of its class by more than this IoU is dropped."
    )
    soft_nms: Literal["none", "linear", "gaussian"] = Field(
        default="none",
        description="Soft-NMS: the score of a detection that overlaps a better one of its class is lowered "
        "instead. linear: times 1 - IoU, above nms_iou. gaussian: times exp(-IoU^2 / soft_sigma).",
    )
    soft_sigma: Positive = Field(default=0.5, description="For soft_nms gaussian: how slowly scores fall with the IoU.")
    box_voting: Fraction | None = Field(
        default=None,
        description="The box of a detection becomes the mean, weighted by score, of all boxes of its class that "
        "it overlaps by at least this IoU; null: the box is kept.",
    )
    limit: Count = Field(
        default=100,
        description="The largest number of detections in an image. They are chosen among the best 20 times as many "
        "pairs of a region and a class, and at least 2000.",
    )
    paste: Literal["continuous", "integer", "replicate"] = Field(
        default="continuous",
        description="How a mask is resized into its box: sampled at pixel centres (detectron2), on a box of whole "
        "pixels (Detectron, torchvision), or at pixel centres with its outermost cells continuing to the edges (FCIS).",
    )

    @model_validator(mode="after")
    def _suppression(self) -> DetectionsConfig:
        if self.soft_nms != "gaussian":
            refuse_unused(self, f"nothing, for soft_nms is {self.soft_nms}", keys=["soft_sigma"])
        else:
            refuse_unused(self, "nothing, for soft_nms is gaussian", keys=["nms_iou"])
        return self


class ModelConfig(Section):
    """The network and the conventions under which its weights were trained."""

    family: Literal["faster_rcnn", "mask_rcnn", "mask_x_rcnn", "fcis"] = Field(
        default="mask_x_rcnn",
        description="Boxes alone; masks learned for each class; masks by transfer from boxes; boxes and masks of "
        "position-sensitive maps.",
    )
    class_names: tuple[Text, ...] = Field(
        default=(), description="The foreground classes in the order of their indices 1..K; empty: those of the data."
    )
    input: InputConfig = Field(default=InputConfig(), description="How an image becomes the network's input.")
    backbone: BackboneConfig = Field(default=BackboneConfig(), description="The convolutional features.")
    anchors: AnchorsConfig = Field(default=AnchorsConfig(), description="The reference boxes of the proposal network.")
    rpn: RpnConfig = Field(default=RpnConfig(), description="The region proposal network.")
    roi: RoiConfig = Field(default=RoiConfig(), description="How features are read inside a box.")
    box: BoxConfig = Field(default=BoxConfig(), description="The box head.")
    mask: MaskConfig = Field(default=MaskConfig(), description="The mask head; faster_rcnn and fcis have none.")
    keypoint: KeypointConfig = Field(default=KeypointConfig(), description="The keypoint head; off by default.")
    transfer: TransferConfig = Field(default=TransferConfig(), description="The function T of family mask_x_rcnn.")
    fcis: FcisConfig = Field(default=FcisConfig(), description="The maps and the votes of family fcis.")
    detections: DetectionsConfig = Field(default=DetectionsConfig(), description="What counts as a detection.")

    @property
    def outputs(self) -> frozenset[str]:
        """The fields of `Detections` that the model fills besides scores and classes."""
        without = self.family == "faster_rcnn" or (self.family == "fcis" and self.fcis.scores == "average")
        masks = () if without else ("masks",)
        keypoints = ("keypoints", "keypoint_scores") if self.keypoint.use else ()
        return frozenset({"boxes", *masks, *keypoints})

    @property
    def mask_side(self) -> int:
        """Cells along each side of what the mask head draws."""
        pooled = self.roi.mask_size
        if self.backbone.neck == "c4":
            pooled = -(-pooled // 2)  # res5, which lies before the head there, has stride 2
        return self.mask.mlp_side or 2 * pooled

    @property
    def has_transfer(self) -> bool:
        """Whether T makes the mask weights."""
        return self.family == "mask_x_rcnn"

    @field_validator("class_names")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise impossible("", "no name twice", name)
            seen.add(name)
        return names

    @model_validator(mode="after")
    def _shapes(self) -> ModelConfig:
        neck = self.backbone.neck
        if any(side % STRIDES[neck] for side in self.input.canvas):
            expected = f"multiples of {STRIDES[neck]}, because neck is {neck}"
            raise impossible("input.canvas", expected, list(self.input.canvas))
        if len(self.anchors.sizes) != MAPS[neck]:
            lists = "1 list" if MAPS[neck] == 1 else f"{MAPS[neck]} lists"
            expected = f"{lists} of sizes, one for each map of neck {neck}"
            raise impossible("anchors.sizes", expected, [list(sizes) for sizes in self.anchors.sizes])
        for phase in ("train", "test"):
            before: int = getattr(self.rpn, f"pre_nms_{phase}")
            after: int = getattr(self.rpn, f"post_nms_{phase}")
            if after > before * MAPS[neck]:
                expected = f"at most {before * MAPS[neck]}, which is what pre_nms_{phase} leaves"
                raise impossible(f"rpn.post_nms_{phase}", expected, after)
        return self

    @model_validator(mode="after")
    def _positions(self) -> ModelConfig:
        if self.family != "fcis":
            why = f"nothing, for family {self.family} has no position-sensitive maps"
            refuse_unused(self.fcis, why, prefix="fcis.")
            return self
        if self.backbone.neck != "dc5":
            raise impossible("backbone.neck", "dc5, because family is fcis", self.backbone.neck)
        refuse_unused(self.roi, "nothing, because family is fcis, which pools maps by position", prefix="roi.")
        why = "nothing, because family is fcis, which has no box head"
        refuse_unused(self.box, why, keys=["layers", "class_agnostic"], prefix="box.")
        if self.fcis.ohem:
            why = "nothing, because fcis.ohem is true: every proposal that is no object is background"
            refuse_unused(self.box, why, keys=["background_iou"], prefix="box.")
        if self.keypoint.use:
            raise impossible("keypoint.use", "false, because family is fcis", True)
        if self.detections.box_voting is not None and "masks" in self.outputs:
            expected = "null, because family is fcis, whose boxes enclose the masks"
            raise impossible("detections.box_voting", expected, self.detections.box_voting)
        return self

    @model_validator(mode="after")
    def _keypoint_classes(self) -> ModelConfig:
        for name in self.keypoint.classes if self.class_names else ():
            if name not in self.class_names:
                raise impossible("keypoint.classes", "classes of class_names", name)
        return self

    @model_validator(mode="after")
    def _family(self) -> ModelConfig:
        if self.family in ("faster_rcnn", "fcis"):
            why = f"none, for family {self.family} has no mask head"
            refuse_unused(self.mask, why, keys=["box_losses"], prefix="mask.")
        if not self.has_transfer:
            refuse_unused(self.transfer, f"nothing, for family {self.family} has no transfer", prefix="transfer.")
            return self
        for key, only in (("head", "fcn"), ("outputs", "specific"), ("activation", "sigmoid")):
            found = getattr(self.mask, key)
            if found != only:
                raise impossible(f"mask.{key}", f"{only}, because family is mask_x_rcnn", found)
        if self.box.layers == 0:
            raise impossible("box.layers", "at least 1, because family is mask_x_rcnn: T reads rows of box.width", 0)
        if self.box.class_agnostic and self.transfer.input in ("box", "cls_box"):
            expected = f"false, for transfer.input is {self.transfer.input}: T reads a class's own box weights"
            raise impossible("box.class_agnostic", expected, self.box.class_agnostic)
        return self
