"""The `model` section. It is stored with every checkpoint, so it holds each convention in which the sources differ."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from maskx_tf.config.detector import AnchorsConfig, BackboneConfig, BoxConfig, InputConfig, RoiConfig, RpnConfig
from maskx_tf.config.fcis import FcisConfig
from maskx_tf.config.fields import Count, Flag, Fraction, Positive, Section, Text, impossible, refuse_unused

# The canvas must be a multiple of the coarsest stride that is halved exactly. P6 is a subsampling of P5, which may
# round up, so FPN needs 32 and not 64: 800 x 1216 is a usual size.
STRIDES = {"fpn": 32, "c5": 32, "c4": 16, "dc5": 16}
MAPS = {"fpn": 5, "c5": 1, "c4": 1, "dc5": 1}  # fpn: P2..P6


class MaskConfig(Section):
    """The mask head."""

    head: Literal["fcn", "mlp"] = Field(
        default="fcn", description="fcn: convolutions, then a deconvolution. mlp: fully connected layers."
    )
    convs: Annotated[int, Field(strict=True, ge=0)] = Field(default=4, description="3x3 convolutions of the fcn.")
    channels: Count = Field(default=256, description="Channels of the fcn's convolutions and its deconvolution.")
    trunk: Literal["plain", "hourglass", "residual"] = Field(
        default="plain",
        description="What the fcn's convolutions are, beyond the papers: hourglass goes down to a quarter of the "
        "region's size and back up, residual has blocks of two; for masks of 64 x 64 (roi.mask_size 32).",
    )
    pixels: Flag = Field(default=False, description="The fcn also reads the region's pixels, beyond the papers.")
    margin: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.0,
        description="How far the mask head looks beyond each side of a box, as a share of the box's width or height.",
    )
    mlp_layers: Annotated[int, Field(strict=True, ge=0)] = Field(default=2, description="Hidden layers of head mlp.")
    mlp_side: Count | None = Field(
        default=None, description="Side of the masks of head mlp; null: twice roi.mask_size."
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
        description="Where the mask head learns: in the proposals that are foreground, or, beyond the papers, in the "
        "boxes of the truth as they are or with their edges moved.",
    )
    rois: Count | None = Field(
        default=None,
        description="Regions of an image in which the mask head learns, beyond the papers; null: as many as can be "
        "foreground for the box head.",
    )
    jitter: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.1, description="For regions jittered: how far edges move, as a share of the box's side."
    )
    box_losses: tuple[Literal["projection", "pairwise", "points", "teacher"], ...] = Field(
        default=(),
        description="What instances without a mask teach, beyond the papers. projection: the mask reaches to the sides "
        "of its box. pairwise: neighbouring pixels of one colour are both mask, or neither. points: the "
        "labelled points of the data. teacher: the masks of the weights' running average (train.ema).",
    )
    mlp_branch: Literal["none", "reference", "lean"] = Field(
        default="none",
        description="Adds a class-agnostic mask from fully connected layers to the fcn's. reference: one layer on the "
        "deconvolved map (157 million weights at full size). lean: a smaller one of ours.",
    )

    @model_validator(mode="after")
    def _combination(self) -> MaskConfig:
        if self.regions != "jittered" and self.jitter != type(self).model_fields["jitter"].default:
            raise impossible("jitter", f"nothing, for regions is {self.regions}", self.jitter)
        if self.mlp_side is not None and self.head != "mlp":
            raise impossible("mlp_side", f"null, for head is {self.head}", self.mlp_side)
        if self.activation == "softmax" and self.head == "mlp":
            raise impossible("activation", "sigmoid, for head is mlp", self.activation)
        if self.trunk != "plain" and self.head == "mlp":
            raise impossible("trunk", "plain, for head is mlp", self.trunk)
        if self.pixels and self.head == "mlp":
            raise impossible("pixels", "false, for head is mlp", self.pixels)
        if self.box_losses and self.activation == "softmax":
            raise impossible("box_losses", "none, for activation is softmax", list(self.box_losses))
        if len(set(self.box_losses)) < len(self.box_losses):
            raise impossible("box_losses", "no loss twice", list(self.box_losses))
        if self.activation == "softmax" and self.outputs == "agnostic":
            raise impossible("activation", "sigmoid, for a class-agnostic mask has no rivals", self.activation)
        if self.mlp_branch != "none" and self.head == "mlp":
            raise impossible("mlp_branch", "none, for the branch is added to head fcn", self.mlp_branch)
        if self.mlp_branch != "none" and self.activation == "softmax":
            raise impossible("mlp_branch", "none, for softmax cancels what all classes share", self.mlp_branch)
        return self


class KeypointConfig(Section):
    """The keypoint head, which any family may have in addition."""

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
    convs: Count = Field(default=8, description="3x3 convolutions.")
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
            refuse_unused(self, "nothing, for use is false")
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
    """The function T that makes a class's mask weights from its box weights (family mask_x_rcnn)."""

    input: Literal["cls", "box", "cls_box", "embedding"] = Field(
        default="cls_box",
        description="What T reads of a class: its row of the classifier, its rows of the box regressor, both, or a row "
        "of a fixed table.",
    )
    embedding: Text | None = Field(
        default=None, description="Path of the table for input embedding: a .npy file with one row a class."
    )
    layers: Literal[1, 2, 3] = Field(default=2, description="Fully connected layers.")
    activation: Literal["relu", "leaky_relu"] = Field(
        default="leaky_relu", description="Between the layers; leaky_relu has slope 0.1."
    )
    init: Literal["reference", "small"] = Field(
        default="reference",
        description="reference: Gaussian by fan-out. small: the same, but standard deviation 0.01 in the first layer.",
    )
    unit_rms: Flag = Field(
        default=False, description="Each part of the input (cls, box) is scaled to a root mean square of one."
    )
    stop_gradient: Flag = Field(default=True, description="The mask loss does not reach the box head's weights.")

    @model_validator(mode="after")
    def _table(self) -> TransferConfig:
        if self.input == "embedding" and self.embedding is None:
            raise impossible("embedding", "the path of a .npy table, for input is embedding", None)
        if self.input != "embedding" and self.embedding is not None:
            raise impossible("embedding", f"null, for input is {self.input}", self.embedding)
        return self


class DetectionsConfig(Section):
    """What counts as a detection, and how its mask is drawn."""

    score: Fraction = Field(default=0.05, description="Detections with this score or less are dropped.")
    nms_iou: Fraction = Field(
        default=0.5, description="A detection that overlaps a better one of its class by more than this IoU goes."
    )
    soft_nms: Literal["none", "linear", "gaussian"] = Field(
        default="none",
        description="A detection that overlaps a better one of its class loses score instead (Soft-NMS). linear: times "
        "1 - IoU, above nms_iou. gaussian: times exp(-IoU^2 / soft_sigma).",
    )
    soft_sigma: Positive = Field(default=0.5, description="For soft_nms gaussian: how slowly scores fall with the IoU.")
    box_voting: Fraction | None = Field(
        default=None,
        description="A detection's box becomes the mean, weighted by score, of all boxes of its class that it overlaps "
        "by at least this IoU; null: it stays.",
    )
    limit: Count = Field(default=100, description="The most detections of an image.")
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
            expected = f"multiples of {STRIDES[neck]}, for neck is {neck}"
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
            if self.fcis != FcisConfig():
                raise impossible(
                    "fcis", f"nothing, for family {self.family} has no position-sensitive maps", "settings"
                )
            return self
        if self.backbone.neck != "dc5":
            raise impossible("backbone.neck", "dc5, for family is fcis", self.backbone.neck)
        if self.keypoint.use:
            raise impossible("keypoint.use", "false, for family is fcis", True)
        if self.detections.box_voting is not None and "masks" in self.outputs:
            expected = "null, for family is fcis, whose boxes enclose the masks"
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
        if not self.has_transfer:
            refuse_unused(self.transfer, f"nothing, for family {self.family} has no transfer", prefix="transfer.")
            return self
        for key, only in (("head", "fcn"), ("outputs", "specific"), ("activation", "sigmoid")):
            found = getattr(self.mask, key)
            if found != only:
                raise impossible(f"mask.{key}", f"{only}, for family is mask_x_rcnn", found)
        if self.box.layers == 0:
            raise impossible("box.layers", "at least 1, for family is mask_x_rcnn: T reads rows of box.width", 0)
        if self.box.class_agnostic and self.transfer.input in ("box", "cls_box"):
            expected = f"false, for transfer.input is {self.transfer.input}: T reads a class's own box weights"
            raise impossible("box.class_agnostic", expected, self.box.class_agnostic)
        return self
