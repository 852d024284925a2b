"""The whole configuration: `model` beside the sections about runs, which are `data`, `train`, `evaluate`, `export`."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from maskx_tf.config.fields import (
    Count,
    Flag,
    Float,
    Fraction,
    Int,
    Positive,
    Section,
    Seed,
    Text,
    impossible,
    refuse_unused,
)
from maskx_tf.config.model import ModelConfig
from maskx_tf.files import Json
from maskx_tf.plugins import DOTTED_NAME

NAMED_SPLIT = re.compile(r"all|none|oracle|voc|nonvoc|E[1-5]_A(20|30|40|50|60)")


def _named_split(name: str) -> str:
    if not NAMED_SPLIT.fullmatch(name):
        names = "all, none, oracle, voc, nonvoc, E1_A20 to E5_A60"
        raise impossible("", f"{names}, a list of classes, or {{random: {{a: 20, seed: 3}}}}", name)
    return name


def _masks_form(value: Any) -> str:
    """The tag of the form in which the masks policy is given; explain.py drops tags, which begin with <."""
    if isinstance(value, (dict, RandomSplit)):
        return "<random>"
    return "<classes>" if isinstance(value, (list, tuple)) else "<name>"


class RandomDraw(Section):
    """Classes drawn at random."""

    a: Count = Field(description="How many classes keep their masks.")
    seed: Seed = Field(default=0, description="The seed of the draw.")
    # Left out where it is false, so that policies are written, and studies' checksums are, as they were before it.
    complement: Flag = Field(
        default=False,
        exclude_if=lambda value: not value,
        description="The classes that are not drawn keep their masks instead.",
    )


class RandomSplit(Section):
    """A masks policy that leaves the choice of A to chance."""

    random: RandomDraw = Field(description="How many classes, and the seed.")


Masks = Annotated[
    Annotated[Text, AfterValidator(_named_split), Tag("<name>")]
    | Annotated[tuple[Text, ...], Field(min_length=1), Tag("<classes>")]
    | Annotated[RandomSplit, Tag("<random>")],
    Discriminator(_masks_form),
]


class Source(Section):
    """One data set. Its paths are relative to the folder in which the command runs."""

    images: Text = Field(description="Folder of the images.")
    annotations: Text = Field(description="File or folder of the annotations, as the format has it.")
    format: Literal[
        "coco",
        "voc",
        "sbd",
        "visual_genome",
        "visual_genome_val",
        "visual_genome_test",
        "cityscapes",
        "open_images",
        "labelme",
        "via",
        "masks",
        "yolo",
        "label_studio",
        "cvat",
    ] = Field(default="coco", description="How the annotations are written; docs/data.md describes each.")
    reader: Annotated[Text, Field(pattern=DOTTED_NAME)] | None = Field(
        default=None,
        description="A function of yours that reads the data instead of a format's, such as mine.read of ./mine.py.",
    )
    masks_b: Text | None = Field(
        default=None,
        description="COCO file of masks that are kept apart: evaluation opens it, training under masks: oracle alone.",
    )
    outside: Flag = Field(
        default=False,
        description="Also take files outside of these folders, such as ../photos/a.jpg, that the annotations name.",
    )


class PhotometricConfig(Section):
    """How far the colours of a training image are changed, at random; 0 leaves them as they are."""

    brightness: Fraction = Field(default=0.0, description="The image is multiplied by 1 minus to 1 plus this.")
    contrast: Fraction = Field(default=0.0, description="The same for the distance from the image's mean grey.")
    saturation: Fraction = Field(default=0.0, description="The same for the distance from each pixel's grey.")
    hue: Annotated[Float, Field(ge=0, le=0.5)] = Field(
        default=0.0, description="The hue is turned by at most this share of a full turn, either way."
    )


class DataConfig(Section):
    """The images, what is known about them, and how they are varied in training."""

    train: tuple[Source, ...] = Field(default=(), description="Data sets to learn from, joined by class name.")
    val: tuple[Source, ...] = Field(default=(), description="Data sets to evaluate on.")
    masks: Masks = Field(
        default="all",
        description="The classes A whose masks training may see. all: every mask that the files have. none: no mask. A "
        "list of class names. voc, nonvoc: COCO's classes that Pascal VOC has, or the others. E1_A20 to E5_A60: the "
        "published random splits of COCO. {random: {a: 20, seed: 3}}: drawn; with complement: true, those that are not "
        "drawn. oracle: all, and those that masks_b keeps apart.",
    )
    names: Text | None = Field(
        default=None,
        description="YAML file of new class names, such as sofa: couch; null there drops a class. It speaks of train; "
        "val is renamed alike.",
    )
    records: Text | None = Field(
        default=None,
        description="Folder that maskx data records wrote of train under these masks and names; training then reads "
        "images and masks from there.",
    )
    max_instances: Count = Field(
        default=100, description="Instances an image that training sees; an image with more keeps its first."
    )
    min_keypoints: Int = Field(
        default=0,
        ge=0,
        description="Training images with fewer keypoints than this are left out; hidden ones count, a crowd's do not.",
    )
    flip: Flag = Field(default=True, description="Every other training image, at random, is mirrored left to right.")
    scale_jitter: tuple[Positive, Positive] = Field(
        default=(1.0, 1.0),
        description="The size of a training image is multiplied by a number drawn between these two; of what is then "
        "larger than the canvas, a random part is used.",
    )
    crop: Annotated[Float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="A training image is cut to a random window that keeps at least this share of its height and "
        "of its width; 1 keeps all.",
    )
    photometric: PhotometricConfig = Field(
        default=PhotometricConfig(), description="The colours of training images are changed at random."
    )
    copy_paste: Fraction = Field(
        default=0.0,
        description="The share of training images onto which instances with masks are copied from another image.",
    )
    seed: Seed = Field(default=0, description="The seed of order and variation.")
    workers: Int = Field(default=0, ge=0, description="Images prepared at a time; 0: as many as there are cores.")

    @field_validator("scale_jitter")
    @classmethod
    def _rising(cls, jitter: tuple[float, float]) -> tuple[float, float]:
        if jitter[0] > jitter[1]:
            raise impossible("", "the smaller number first", list(jitter))
        return jitter

    @model_validator(mode="after")
    def _apart(self) -> DataConfig:
        if self.masks == "oracle" and not any(source.masks_b for source in self.train):
            raise impossible("masks", "another policy, or masks_b in data.train, which oracle opens", self.masks)
        return self


class WarmUp(Section):
    """The rate rises in a straight line at the start."""

    steps: Int = Field(default=500, ge=0, description="How many steps it takes.")
    start: Fraction = Field(default=1 / 3, description="The rate of the first step, as a share of the full one.")


TrainingStage = Literal["all", "detector", "mask", "keypoint", "rpn", "regions", "rpn_head", "heads"]
BRANCH_STAGES = ("mask", "keypoint")  # in which one branch learns, on a detector that is fixed
LATER_STAGES = (*BRANCH_STAGES, "rpn_head", "heads")  # in which the features are fixed, so that weights are needed


class CallbackConfig(Section):
    """A callback of Keras that joins a run."""

    name: Annotated[Text, Field(pattern=DOTTED_NAME)] = Field(
        description="The class, such as wandb.integration.keras.WandbMetricsLogger, or mine.Watcher of ./mine.py."
    )
    arguments: Json = Field(default={}, description="What the class is made with, by name.")


class TrainConfig(Section):
    """One training run."""

    stage: TrainingStage = Field(
        default="all",
        description="What learns: everything; all but the mask and keypoint branches (detector); one of these on a "
        "detector that is fixed; features and proposal network (rpn); features and heads, in the proposals of another "
        "model (regions); the proposal network, or the heads, on features that are fixed (rpn_head, heads).",
    )
    stages: tuple[TrainingStage, ...] = Field(
        default=(),
        description="Runs one after the other, each of all steps, in place of stage. Each starts from the weights of "
        "the one before it, but for regions, which starts as the first and takes proposals from the one before it.",
    )
    proposals: Text | None = Field(
        default=None, description="For stage regions: a run or model folder whose network proposes the regions."
    )
    weights: Text | None = Field(
        default=None, description="A checkpoint, run folder or imported model to start from; null starts anew."
    )
    steps: Count = Field(default=90_000, description="Updates of the weights.")
    batch: Count = Field(default=16, description="Images an update, over all devices.")
    accumulate: Count = Field(default=1, description="Parts in which an update's images are worked through.")
    rate: Positive = Field(default=0.02, description="The learning rate after the warm-up.")
    warm_up: WarmUp = Field(default=WarmUp(), description="The start of the schedule.")
    schedule: Literal["drops", "cosine"] = Field(
        default="drops", description="How the rate falls: at the steps named in drops, or as a half cosine to zero."
    )
    drops: tuple[Count, ...] = Field(
        default=(60_000, 80_000),
        description="Steps at which the rate is multiplied by drop_factor; later ones are idle.",
    )
    drop_factor: Annotated[Float, Field(gt=0, lt=1)] = Field(default=0.1, description="What a drop leaves of the rate.")
    momentum: Annotated[Float, Field(ge=0, lt=1)] = Field(default=0.9, description="Momentum of the gradient descent.")
    weight_decay: Float = Field(
        default=1e-4,
        ge=0,
        description="Half the factor of the squared weights in the loss; biases and norms have none.",
    )
    bias_rate_factor: Positive = Field(default=2.0, description="The rate of biases, as a multiple of the weights'.")
    neck_rate_factor: Positive = Field(
        default=1.0,
        description="The rate of the convolution before the maps of family fcis, as a multiple; 3 in the reference.",
    )
    clip_norm: Positive | None = Field(
        default=None, description="The largest norm of the whole gradient after summing over devices; null: no limit."
    )
    normaliser: Literal["global", "device"] = Field(
        default="global",
        description="What a loss is divided by: its count over all devices, so that one batch gives one result however "
        "it is divided; or each device's own count, as the reference does.",
    )
    keypoint_weight: Positive = Field(default=1.0, description="The weight of loss_keypoint among the losses.")
    box_warm_up: Fraction = Field(
        default=0.3,
        description="The share of the steps over which the weights of loss_mask_pairwise and loss_mask_teacher "
        "(model.mask.box_losses) rise from 0 to 1.",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="The type of the computation; weights stay float32, float16 scales its loss."
    )
    ema: Annotated[Float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Decay of a running average of the weights, which is then evaluated; null: none."
    )
    seed: Seed = Field(default=0, description="The seed of initial weights and of the sampling in the targets.")
    deterministic: Flag = Field(
        default=False,
        description="Equal runs end with equal bits, and no gradient of RoIAlign is lost where threads meet; slower.",
    )
    strategy: Literal["auto", "one", "mirrored", "multi_worker"] = Field(
        default="auto",
        description="One device, all devices of this machine, or many machines; auto: whatever is there.",
    )
    log_every: Count = Field(default=20, description="Steps of which a line of the log is the mean.")
    pictures_every: Int = Field(
        default=0, ge=0, description="Steps from one sheet of predictions for TensorBoard to the next; 0: none."
    )
    checkpoint_every: Count = Field(default=5_000, description="Steps from one checkpoint to the next.")
    keep: Count = Field(default=3, description="Checkpoints that are kept, the newest ones, beside the best.")
    callbacks: tuple[CallbackConfig, ...] = Field(
        default=(), description="Keras callbacks that join the run; on several machines, on the first alone."
    )

    @field_validator("drops")
    @classmethod
    def _rising(cls, drops: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in itertools.pairwise(drops)):
            raise impossible("", "steps in rising order", list(drops))
        return drops

    @model_validator(mode="after")
    def _combination(self) -> TrainConfig:
        if self.batch % self.accumulate:
            raise impossible("accumulate", f"a divisor of batch, which is {self.batch}", self.accumulate)
        if self.stages and self.stage != "all":
            raise impossible("stage", "all, for stages names what learns", self.stage)
        if self.stages[:1] == ("regions",):
            raise impossible("stages", "another first than regions, which takes proposals from the one before it", "it")
        for stage in (self.stage, *self.stages[:1]):
            if stage in LATER_STAGES and self.weights is None:
                raise impossible("weights", f"the trained detector on which stage {stage} builds", None)
        if (self.stage == "regions") != (self.proposals is not None):
            expected = "a run that proposes regions" if self.stage == "regions" else "null, for stage is not regions"
            raise impossible("proposals", expected, self.proposals)
        return self


class EvaluateConfig(Section):
    """Average precision, during training and after it."""

    kinds: tuple[Literal["box", "mask", "keypoint"], ...] | None = Field(
        default=None, min_length=1, description="The IoU that is measured; null: all that the model has."
    )
    sigmas: tuple[Positive, ...] | None = Field(
        default=None,
        min_length=1,
        description="How far each keypoint may lie from its place (OKS), as a share of the square root of the object's "
        "area; null: COCO's for its keypoints, .05 for others.",
    )
    score: Fraction = Field(
        default=0.05,
        description="Stands in for model.detections.score: detections with this score or less are dropped.",
    )
    masks: Masks | None = Field(
        default=None,
        description="The classes that count as A, in the form of data.masks; null: those whose masks training saw, "
        "under the policy oracle those that have masks in the annotations themselves.",
    )
    every: Int = Field(default=0, ge=0, description="Training steps from one evaluation to the next; 0: at the end.")
    batch: Count = Field(default=1, description="Images at a time.")


class ExportConfig(Section):
    """What an export holds."""

    signatures: tuple[Literal["serving_default", "image_tensor", "segment_boxes"], ...] | None = Field(
        default=None,
        min_length=1,
        description="Entry points of a SavedModel: image files, pixels, or pixels and boxes; null: all of the family.",
    )
    bf16: Flag = Field(default=False, description="Convolutions compute in bfloat16.")
    warmup: Int = Field(default=1, ge=0, le=100, description="Warm-up requests for each signature.")
    max_pixels: Count = Field(
        default=2**26, description="Image files that hold more pixels than this are refused before they are decoded."
    )


class Config(Section):
    """Everything that a run depends on beside the code, the data and the machine."""

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
            expected = "no keypoint, for the model has no keypoints"
            raise impossible("evaluate.kinds", expected, list(self.evaluate.kinds or ()))
        return self

    @model_validator(mode="after")
    def _family(self) -> Config:
        stages = (self.train.stage, *self.train.stages)
        if self.model.family == "fcis" and set(stages) != {"all"}:
            raise impossible("train.stage", "all, for the maps of family fcis give boxes and masks", stages[-1])
        if self.model.family != "fcis":
            why = f"nothing, for family {self.model.family} has no convolution before maps"
            refuse_unused(self.train, why, keys=["neck_rate_factor"], prefix="train.")
        if "masks" not in self.model.outputs:
            without = f"for family {self.model.family} has no masks"
            if "mask" in stages:
                raise impossible("train.stage", f"no mask, {without}", "mask")
            if "mask" in (self.evaluate.kinds or ()):
                raise impossible("evaluate.kinds", f"box alone, {without}", list(self.evaluate.kinds or ()))
            if "segment_boxes" in (self.export.signatures or ()):
                raise impossible("export.signatures", f"no segment_boxes, {without}", "it")
        return self
