"""The `train` section: what learns, from which weights, on which schedule."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

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
from maskx_tf.files import Json
from maskx_tf.plugins import DOTTED_NAME


class WarmUp(Section):
    """The rate rises in a straight line at the start."""

    steps: Int = Field(default=500, ge=0, description="Number of steps of the warm-up.")
    start: Fraction = Field(default=1 / 3, description="The rate of the first step, as a share of the full one.")


TrainingStage = Literal["all", "detector", "mask", "keypoint", "rpn", "regions", "rpn_head", "heads"]
BRANCH_STAGES = ("mask", "keypoint")  # one branch learns, on a fixed detector
LATER_STAGES = (*BRANCH_STAGES, "rpn_head", "heads")  # the features are fixed, so weights are needed


class CallbackConfig(Section):
    """A callback of Keras that joins a run."""

    name: Annotated[Text, Field(pattern=DOTTED_NAME)] = Field(
        description="The class, such as wandb.integration.keras.WandbMetricsLogger, or mine.Watcher in ./mine.py."
    )
    arguments: Json = Field(default={}, description="The arguments of the class, by name.")


class TrainConfig(Section):
    """One training run."""

    stage: TrainingStage = Field(
        default="all",
        description="The parts that learn. all: everything. detector: all but the mask and keypoint branches. "
        "mask, keypoint: this branch, on a fixed detector. rpn: features and proposal network. "
        "regions: features and heads, on the proposals of another model. rpn_head, heads: the "
        "proposal network, or the heads, on fixed features.",
    )
    stages: tuple[TrainingStage, ...] = Field(
        default=(),
        description="Stages to run one after the other, each with all steps, in place of stage. Each starts from "
        "the weights of the one before it, except regions, which starts like the first stage and uses"
        " the proposals of the one before it.",
    )
    proposals: Text | None = Field(
        default=None, description="For stage regions: a run or model folder whose network proposes the regions."
    )
    weights: Text | None = Field(
        default=None,
        description="A checkpoint, run folder or imported model to start from; null starts with random weights.",
    )
    steps: Count = Field(default=90_000, description="Updates of the weights.")
    batch: Count = Field(default=16, description="Images per update, on all devices together.")
    accumulate: Count = Field(default=1, description="Number of parts in which the images of an update are processed.")
    rate: Positive = Field(default=0.02, description="The learning rate after the warm-up.")
    warm_up: WarmUp = Field(default=WarmUp(), description="The start of the schedule.")
    schedule: Literal["drops", "cosine"] = Field(
        default="drops", description="How the rate falls: at the steps named in drops, or as a half cosine to zero."
    )
    drops: tuple[Count, ...] = Field(
        default=(60_000, 80_000),
        description="Steps at which the rate is multiplied by drop_factor; later ones are idle.",
    )
    drop_factor: Annotated[Float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="The factor by which a drop multiplies the rate."
    )
    momentum: Annotated[Float, Field(ge=0, lt=1)] = Field(default=0.9, description="Momentum of the gradient descent.")
    weight_decay: Float = Field(
        default=1e-4,
        ge=0,
        description="The decay adds this times a weight to its gradient: the loss has half of this times the "
        "squared weights. Biases and norms do not decay.",
    )
    bias_rate_factor: Positive = Field(
        default=2.0, description="The rate of biases, as a multiple of that of other weights."
    )
    neck_rate_factor: Positive = Field(
        default=1.0,
        description="The rate of the convolution before the maps of family fcis, as a multiple of that of other "
        "weights; 3 in the reference.",
    )
    clip_norm: Positive | None = Field(
        default=None, description="The largest norm of the whole gradient after summing over devices; null: no limit."
    )
    normaliser: Literal["global", "device"] = Field(
        default="global",
        description="What a loss is divided by. global: its count over all devices, so that the result does not "
        "depend on how a batch is divided among devices. device: the count of each device, as in the "
        "reference.",
    )
    keypoint_weight: Positive = Field(default=1.0, description="The weight of loss_keypoint among the losses.")
    box_warm_up: Fraction = Field(
        default=0.3,
        description="The share of the steps over which the weights of loss_mask_pairwise and loss_mask_teacher "
        "(model.mask.box_losses) rise from 0 to 1.",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="The type of the computation. Weights stay in float32; with float16 the loss is scaled.",
    )
    jit: Flag = Field(
        default=False,
        description="Compiles the losses and their gradients with XLA. The first step takes half a minute more, "
        "and the same seed draws other regions.",
    )
    ema: Annotated[Float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Decay of a running average of the weights, which is then evaluated; null: none."
    )
    seed: Seed = Field(default=0, description="The seed of initial weights and of the sampling in the targets.")
    deterministic: Flag = Field(
        default=False,
        description="Equal runs give equal bits, and no part of RoIAlign's gradient is lost when threads write at"
        " the same time; slower.",
    )
    strategy: Literal["auto", "one", "mirrored", "multi_worker"] = Field(
        default="auto",
        description="One device, all devices of this machine, or several machines; auto: all that are available.",
    )
    log_every: Count = Field(default=20, description="Steps over which a line of the log is the mean.")
    pictures_every: Int = Field(
        default=0, ge=0, description="Steps from one sheet of predictions for TensorBoard to the next; 0: none."
    )
    checkpoint_every: Count = Field(default=5_000, description="Steps from one checkpoint to the next.")
    keep: Count = Field(
        default=3, description="Number of the newest checkpoints that are kept, in addition to the best."
    )
    callbacks: tuple[CallbackConfig, ...] = Field(
        default=(), description="Keras callbacks of the run; on several machines, only the first runs them."
    )

    @field_validator("drops")
    @classmethod
    def _ascending(cls, drops: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in itertools.pairwise(drops)):
            raise impossible("", "steps in ascending order", list(drops))
        return drops

    @model_validator(mode="after")
    def _combination(self) -> TrainConfig:
        if self.schedule == "cosine":
            if self.drops:
                refuse_unused(self, "none, because schedule is cosine", keys=["drops"])
            refuse_unused(self, "nothing, because schedule is cosine", keys=["drop_factor"])
        if self.batch % self.accumulate:
            raise impossible("accumulate", f"a divisor of batch, which is {self.batch}", self.accumulate)
        if self.stages and self.stage != "all":
            raise impossible("stage", "all, because stages names what learns", self.stage)
        if self.stages[:1] == ("regions",):
            raise impossible(
                "stages", "another first than regions, which takes proposals from the one before it", list(self.stages)
            )
        for stage in (self.stage, *self.stages[:1]):
            if stage in LATER_STAGES and self.weights is None:
                raise impossible("weights", f"the trained detector on which stage {stage} builds", None)
        if (self.stage == "regions") != (self.proposals is not None):
            expected = (
                "a run that proposes regions" if self.stage == "regions" else "null, because stage is not regions"
            )
            raise impossible("proposals", expected, self.proposals)
        return self
