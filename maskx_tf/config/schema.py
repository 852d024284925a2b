"""The whole configuration: `model`, and the sections about runs: `data`, `train`, `evaluate`, `export`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from maskx_tf.config.data import DataConfig, Masks, RandomSplit
from maskx_tf.config.fields import Count, Flag, Fraction, Int, Positive, Section, impossible, refuse_unused
from maskx_tf.config.model import ModelConfig
from maskx_tf.config.training import TrainConfig


class EvaluateConfig(Section):
    """Average precision, during training and after it."""

    kinds: tuple[Literal["box", "mask", "keypoint"], ...] | None = Field(
        default=None, min_length=1, description="The kinds of figures that are measured; null: all that the model has."
    )
    sigmas: tuple[Positive, ...] | None = Field(
        default=None,
        min_length=1,
        description="The tolerance of each keypoint's distance (OKS), as a share of the square root of the "
        "object's area; null: COCO's for its keypoints, .05 for others.",
    )
    score: Fraction = Field(
        default=0.05,
        description="Replaces model.detections.score: detections with this score or less are dropped.",
    )
    masks: Masks | None = Field(
        default=None,
        description="The classes that count as A, in the form of data.masks; null: those whose masks training "
        "saw, or with the policy oracle those that have masks in the annotations themselves.",
    )
    every: Int = Field(default=0, ge=0, description="Training steps from one evaluation to the next; 0: at the end.")
    batch: Count = Field(default=1, description="Images at a time.")


class ExportConfig(Section):
    """The contents of an export."""

    signatures: tuple[Literal["serving_default", "image_tensor", "segment_boxes"], ...] | None = Field(
        default=None,
        min_length=1,
        description="Signatures of a SavedModel: for image files, for pixels, or for image files and boxes; null:"
        " all of the family.",
    )
    bf16: Flag = Field(default=False, description="Convolutions compute in bfloat16.")
    warmup: Int = Field(default=1, ge=0, le=100, description="Warm-up requests for each signature.")
    max_pixels: Count = Field(
        default=2**26, description="Image files that hold more pixels than this are refused before they are decoded."
    )


class Config(Section):
    """Everything that a run depends on besides the code, the data and the machine."""

    model: ModelConfig = Field(default=ModelConfig(), description="The network and its conventions.")
    data: DataConfig = Field(default=DataConfig(), description="The images.")
    train: TrainConfig = Field(default=TrainConfig(), description="The training run.")
    evaluate: EvaluateConfig = Field(default=EvaluateConfig(), description="The evaluation.")
    export: ExportConfig = Field(default=ExportConfig(), description="The export.")

    def with_classes(self, names: tuple[str, ...]) -> Config:
        """The same with the classes of a model."""
        return self.model_copy(update={"model": self.model.model_copy(update={"class_names": names})})

    @model_validator(mode="after")
    def _classes(self) -> Config:
        names, masks = self.model.class_names, self.data.masks
        if names and isinstance(masks, tuple):
            for name in masks:
                if name not in names:
                    raise impossible("data.masks", "classes of model.class_names", name)
        if names and isinstance(masks, RandomSplit) and masks.random.a > len(names):
            raise impossible("data.masks.random.a", f"at most {len(names)}, the number of classes", masks.random.a)
        return self

    def with_keypoints(
        self, names: tuple[str, ...], skeleton: tuple[tuple[str, str], ...], flip: tuple[tuple[str, str], ...]
    ) -> Config:
        """The same with the keypoints of a model."""
        keypoint = self.model.keypoint.model_copy(update={"names": names, "skeleton": skeleton, "flip": flip})
        return self.model_copy(update={"model": self.model.model_copy(update={"keypoint": keypoint})})

    @model_validator(mode="after")
    def _keypoint_stage(self) -> Config:
        if "keypoint" in (self.train.stage, *self.train.stages) and not self.model.keypoint.use:
            raise impossible("train.stage", "no keypoint, for model.keypoint.use is false", "keypoint")
        if not self.model.keypoint.use:
            why = "nothing, for model.keypoint.use is false"
            refuse_unused(self.train, why, keys=["keypoint_weight"], prefix="train.")
        return self

    @model_validator(mode="after")
    def _teacher(self) -> Config:
        if "teacher" in self.model.mask.box_losses and self.train.ema is None:
            expected = "no teacher, for train.ema is null: there is no running average"
            raise impossible("model.mask.box_losses", expected, list(self.model.mask.box_losses))
        return self

    @model_validator(mode="after")
    def _kinds(self) -> Config:
        if "keypoint" in (self.evaluate.kinds or ()) and "keypoints" not in self.model.outputs:
            expected = "no keypoint, because the model has no keypoints"
            raise impossible("evaluate.kinds", expected, list(self.evaluate.kinds or ()))
        return self

    @model_validator(mode="after")
    def _family(self) -> Config:
        stages = (self.train.stage, *self.train.stages)
        if self.model.family == "fcis" and set(stages) != {"all"}:
            raise impossible("train.stage", "all, because the maps of family fcis give boxes and masks", stages[-1])
        if self.model.family != "fcis":
            why = f"nothing, because family {self.model.family} has no convolution before maps"
            refuse_unused(self.train, why, keys=["neck_rate_factor"], prefix="train.")
        if "masks" not in self.model.outputs:
            without = f"for family {self.model.family} has no masks"
            if "mask" in stages:
                raise impossible("train.stage", f"no mask, {without}", "mask")
            if "mask" in (self.evaluate.kinds or ()):
                raise impossible("evaluate.kinds", f"box alone, {without}", list(self.evaluate.kinds or ()))
            if "segment_boxes" in (self.export.signatures or ()):
                raise impossible(
                    "export.signatures", f"no segment_boxes, {without}", list(self.export.signatures or ())
                )
        return self
