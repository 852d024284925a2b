"""Configuration of a study: groups (a seed or a split each), methods, and the tables that compare them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from maskx_tf.config import recipes
from maskx_tf.config.data import Masks
from maskx_tf.config.fields import Count, Float, Fraction, Positive, Section, Seed, Text, impossible
from maskx_tf.config.loader import read
from maskx_tf.files import Json

Name = Annotated[Text, Field(pattern=r"^\w[\w.+-]*$")]  # it is the name of a folder, too
Settings = Json


class SyntheticConfig(Section):
    """The synthetic benchmark, which the study generates itself, with the seed of each group."""

    images: Count = Field(
        default=5000, description="Number of images in all parts: a tenth is val, a fifth test, the rest train."
    )
    size: Count = Field(default=96, description="Side of an image in pixels.")
    classes: Count = Field(default=40, description="Number of classes.")
    a: Count = Field(default=28, description="Number of classes that keep their masks, if the group does not set it.")
    companions: Fraction = Field(default=0.7, description="The share of groups that are pairs of overlapping objects.")
    offset: Positive = Field(
        default=0.35, description="Distance of the centres of a pair, as a share of the sum of their radii."
    )


class DetectorConfig(Section):
    """Stage 1."""

    recipe: Text = Field(description="A recipe, relative to the study's file.")
    settings: Settings = Field(default={}, description="Settings that replace the recipe's.")


class GroupConfig(Section):
    """Cells that share a detector and a division of the classes; means and spreads are taken over groups."""

    name: Name = Field(description="Name of the group and of its folder.")
    seed: Seed = Field(default=0, description="Seed of the weights, of the order of images, and of synthetic data.")
    a: Count | None = Field(
        default=None, description="For synthetic data: the number of classes that keep their masks."
    )
    masks: Masks | None = Field(default=None, description="For other data: the classes A, in the form of data.masks.")
    detector: Name | None = Field(
        default=None,
        description="The group whose detector is used, with the same images and boxes; null: the group trains its own.",
    )
    methods: tuple[Name, ...] | None = Field(default=None, description="The methods of this group; null: all.")


class RegionsConfig(Section):
    """The regions of a fixed detector that the mask branches learn from, pooled once and kept on disk."""

    per_image: Count = Field(
        default=6, description="The largest number of regions of an image, and of its mirror image."
    )
    limit_mib: Count = Field(
        default=8000, description="The most disk space that the regions of a group may take, in MiB."
    )


class MethodConfig(Section):
    """A row of the tables."""

    name: Name = Field(description="Name of the method and of its cells' folders.")
    recipe: Text = Field(description="A recipe, relative to the study's file.")
    settings: Settings = Field(default={}, description="Settings that replace the recipe's.")
    start: Literal["detector", "nothing", "grabcut"] = Field(
        default="detector",
        description="detector: the mask branch alone learns, on the group's detector. nothing: everything learns,"
        " end to end. grabcut: nothing learns; GrabCut makes the masks of the detected boxes.",
    )
    steps: tuple[Literal["refine", "disjoint"], ...] = Field(
        default=(),
        description="Steps after the model, before the masks are scored: see maskx eval. The model is that of the"
        " first method with the same settings and no steps, if there is one.",
    )
    masks: Literal["a", "none", "all", "grabcut"] = Field(
        default="a",
        description="The masks that training sees. a: those of A. none: no masks. all: those of A and B (the "
        "oracle). grabcut: those of A, and GrabCut's masks of B's boxes.",
    )
    embeddings: Literal["random", "constant", "shuffled"] | None = Field(
        default=None,
        description="What T reads instead of each class's own rows. random: Gaussian noise. constant: one row for"
        " all classes. shuffled: the rows of another class.",
    )

    @model_validator(mode="after")
    def _control(self) -> MethodConfig:
        if self.start == "grabcut" and "refine" in self.steps:
            raise impossible(
                "steps", "no refine, because start is grabcut: there is no predicted mask", list(self.steps)
            )
        if self.embeddings is not None and self.start != "detector":
            raise impossible(
                "embeddings",
                f"null, because start is {self.start}: T is not there or learns with its rows",
                self.embeddings,
            )
        return self


class ChoiceConfig(Section):
    """A method that is chosen among others: the one with the highest mean over groups on the validation part."""

    name: Name = Field(description="Name of the choice in tables.")
    among: tuple[Name, ...] = Field(min_length=1, description="The methods of which one is chosen.")
    figure: Text = Field(default="mask/B/AP", description="The figure of the validation part that is compared.")


class RowConfig(Section):
    """A row of a table."""

    method: Name = Field(description="The name of a method or of a choice.")
    title: Text = Field(description="Title of the row.")
    paper: tuple[Float, Float, Float, Float] | None = Field(
        default=None, description="The paper's mask AP: voc to nonvoc on B and A, nonvoc to voc on B and A."
    )


class TableConfig(Section):
    """A table of the paper."""

    name: Name = Field(description="Name of the table, such as 1a.")
    title: Text = Field(description="Title of the table.")
    baseline: Name = Field(description="The method that the others are compared with, in the same group.")
    groups: tuple[Name, ...] | None = Field(
        default=None, description="Groups in the table; null: all that run every method."
    )
    rows: tuple[RowConfig, ...] = Field(min_length=1, description="Rows of the table, in order.")


class FigureConfig(Section):
    """Figure 3: what is gained on B over the number of classes in A."""

    name: Name = Field(default="3", description="Name of the figure's file.")
    title: Text = Field(description="Title of the figure.")
    baseline: Name = Field(description="The method that the others are compared with.")
    groups: tuple[Name, ...] | None = Field(default=None, description="Groups in the figure; null: all.")
    methods: tuple[Name, ...] = Field(min_length=1, description="The methods in the figure.")


class StudyConfig(Section):
    """A grid of cells: each cell is a method in a group."""

    name: Name = Field(description="Name of the study.")
    synthetic: SyntheticConfig | None = Field(
        default=None, description="The synthetic data; null: the data of the recipes."
    )
    settings: Settings = Field(
        default={}, description="Settings of all recipes: that of the detector and those of the methods."
    )
    detector: DetectorConfig = Field(description="The detector, which is stage 1.")
    mask_settings: Settings = Field(default={}, description="Settings of all methods that start from the detector.")
    regions: RegionsConfig = Field(
        default=RegionsConfig(), description="The pooled regions from which these methods learn."
    )
    groups: tuple[GroupConfig, ...] = Field(min_length=1, description="The groups: seeds or splits.")
    methods: tuple[MethodConfig, ...] = Field(min_length=1, description="The methods, in the order in which they run.")
    choices: tuple[ChoiceConfig, ...] = Field(default=(), description="Choices of a method among others.")
    tables: tuple[TableConfig, ...] = Field(default=(), description="Tables of the summary.")
    figures: tuple[FigureConfig, ...] = Field(default=(), description="Figures of the summary.")

    @model_validator(mode="after")
    def _names(self) -> StudyConfig:
        groups, methods, choices = _names(self.groups), _names(self.methods), _names(self.choices)
        for key, names in (("groups", groups), ("methods", [*methods, *choices]), ("tables", _names(self.tables))):
            if len(set(names)) < len(names):
                raise impossible(key, "no name twice", next(name for name in names if names.count(name) > 1))
        for group in self.groups:
            _known("groups.methods", group.methods or (), methods)
        for choice in self.choices:
            _known("choices.among", choice.among, methods)
        for table in self.tables:
            _known("tables.groups", table.groups or (), groups)
            _known("tables.rows.method", [row.method for row in table.rows], [*methods, *choices])
            _known("tables.baseline", [table.baseline], [*methods, *choices])
        for figure in self.figures:
            _known("figures", [figure.baseline, *figure.methods], [*methods, *choices])
            _known("figures.groups", figure.groups or (), groups)
        return self

    @model_validator(mode="after")
    def _groups(self) -> StudyConfig:
        by_name = {group.name: group for group in self.groups}
        for group in self.groups:
            if self.synthetic is None and group.a is not None:
                raise impossible("groups.a", "masks instead, for the data are not synthetic", group.a)
            if self.synthetic is not None and group.masks is not None:
                raise impossible("groups.masks", "a instead, for the data are synthetic", group.name)
            if group.detector is None:
                continue
            other = by_name.get(group.detector)
            if other is None or other.detector is not None:
                raise impossible("groups.detector", "a group that trains one itself", group.detector)
            if self.synthetic is not None and other.seed != group.seed:
                raise impossible("groups.detector", f"one of seed {group.seed}: others see other images", other.name)
        return self

    @model_validator(mode="after")
    def _choices(self) -> StudyConfig:
        if self.choices and self.synthetic is None:
            raise impossible("choices", "synthetic data, which have a part to choose by", self.choices[0].name)
        if self.choices and all(group.methods is not None for group in self.groups):
            raise impossible("choices", "a group that runs every method, to choose by", self.choices[0].name)
        among = {name for choice in self.choices for name in choice.among}
        for method in self.methods:
            if method.start == "grabcut" and method.name in among:
                raise impossible("choices.among", "methods that learn, for others see the test part alone", method.name)
        return self


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> StudyConfig:
    """Reads and checks a study; recipes become paths from here.

    Raises:
        BadInput: one line with the file or override, the key, what was expected and what was found.
    """
    path = recipes.find(os.fspath(path))
    study = read(StudyConfig, path, overrides)
    here = os.path.dirname(path)

    def moved(recipe: str) -> str:
        return os.path.normpath(recipes.find(recipe, here))

    detector = study.detector.model_copy(update={"recipe": moved(study.detector.recipe)})
    methods = tuple(one.model_copy(update={"recipe": moved(one.recipe)}) for one in study.methods)
    return study.model_copy(update={"detector": detector, "methods": methods})


def _names(sections: Iterable[Any]) -> list[str]:
    return [one.name for one in sections]


def _known(key: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise impossible(key, f"one of {', '.join(known)}", name)
