"""The `data` section: data sets, the policy that says whose masks training may see, and the variation of images."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from maskx_tf.config.fields import Count, Flag, Float, Fraction, Int, Positive, Section, Seed, Text, impossible
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

    a: Count = Field(description="Number of classes that keep their masks.")
    seed: Seed = Field(default=0, description="The seed of the draw.")
    # Left out where it is false, so that policies are written, and studies' checksums are, as they were before it.
    complement: Flag = Field(
        default=False,
        exclude_if=lambda value: not value,
        description="The classes that are not drawn keep their masks instead.",
    )


class RandomSplit(Section):
    """A masks policy that draws A at random."""

    random: RandomDraw = Field(description="The number of classes, and the seed.")


Masks = Annotated[
    Annotated[Text, AfterValidator(_named_split), Tag("<name>")]
    | Annotated[tuple[Text, ...], Field(min_length=1), Tag("<classes>")]
    | Annotated[RandomSplit, Tag("<random>")],
    Discriminator(_masks_form),
]


class Source(Section):
    """One data set. Its paths are relative to the folder in which the command runs."""

    images: Text = Field(description="Folder of the images.")
    annotations: Text = Field(description="File or folder of the annotations, depending on the format.")
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
        description="A function of yours that reads the data, in place of format, such as mine.read in ./mine.py.",
    )
    masks_b: Text | None = Field(
        default=None,
        description="COCO file with the masks of B, apart from the annotations: evaluation opens it, and training"
        " only with masks: oracle.",
    )
    outside: Flag = Field(
        default=False,
        description="Also opens files outside of these folders that the annotations name, such as ../photos/a.jpg.",
    )


class PhotometricConfig(Section):
    """How far the colours of a training image are changed, at random; 0 leaves them as they are."""

    brightness: Fraction = Field(
        default=0.0, description="The image is multiplied by a number between 1 minus this and 1 plus this."
    )
    contrast: Fraction = Field(default=0.0, description="The same for the difference from the image's mean grey.")
    saturation: Fraction = Field(default=0.0, description="The same for the difference from each pixel's grey.")
    hue: Annotated[Float, Field(ge=0, le=0.5)] = Field(
        default=0.0, description="The hue is rotated by at most this share of a full turn, in either direction."
    )


class DataConfig(Section):
    """The images, what is known about them, and how they are varied in training."""

    train: tuple[Source, ...] = Field(default=(), description="Data sets to learn from, joined by class name.")
    val: tuple[Source, ...] = Field(default=(), description="Data sets to evaluate on.")
    masks: Masks = Field(
        default="all",
        description="The classes A, whose masks training sees. all: every mask in the files. none: no mask. A "
        "list of class names. voc, nonvoc: COCO's classes that Pascal VOC has, or the others. E1_A20 "
        "to E5_A60: the published random splits of COCO. {random: {a: 20, seed: 3}}: classes drawn at"
        " random; with complement: true, those that are not drawn. oracle: every mask in the files "
        "and in masks_b.",
    )
    names: Text | None = Field(
        default=None,
        description="YAML file of new class names, such as sofa: couch; null as a name drops the class. "
        "study/ccp_names and the like name files of the package. The file must fit train; val is "
        "renamed in the same way.",
    )
    records: Text | None = Field(
        default=None,
        description="Folder that maskx data records wrote from train, with these masks and names; training then "
        "reads images and masks from there.",
    )
    max_instances: Count = Field(
        default=100, description="The most instances of an image that training uses; of more, the first ones."
    )
    min_keypoints: Int = Field(
        default=0,
        ge=0,
        description="Training images with fewer keypoints than this are left out; hidden ones count, a crowd's do not.",
    )
    flip: Flag = Field(default=True, description="Every other training image, at random, is mirrored left to right.")
    scale_jitter: tuple[Positive, Positive] = Field(
        default=(1.0, 1.0),
        description="The size of a training image is multiplied by a number drawn between these two; if the "
        "result is larger than the canvas, a random part of it is used.",
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
