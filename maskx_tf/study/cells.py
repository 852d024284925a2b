"""The cells of a study: one for each method and group, with its configuration and whether it is still up to date."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maskx_tf import files
from maskx_tf.config import Config
from maskx_tf.config.loader import read
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.study.config import GroupConfig, MethodConfig, StudyConfig
from maskx_tf.synthetic.parameters import Recipe

# Settings that do not change figures: paths, because a study may be moved, and those about logs.
ASIDE: tuple[str, ...] = ("data.train", "data.val", "data.names", "data.records", "data.workers", "train.weights")
ASIDE += ("train.strategy", "train.log_every", "train.pictures_every", "train.checkpoint_every", "train.keep")
ASIDE += ("model.transfer.embedding", "model.backbone.weights", "evaluate.batch", "evaluate.every", "export")


class Cell(NamedTuple):
    """A method in a group."""

    group: GroupConfig
    method: MethodConfig

    @property
    def name(self) -> str:
        """Returns the name that `--only` takes."""
        return f"{self.group.name}/{self.method.name}"


class Places(NamedTuple):
    """The folders of a study.

    Attributes:
        out: the study folder.
    """

    out: Path

    def data(self, study: StudyConfig, group: GroupConfig) -> Path:
        """The synthetic data of a group; groups of one seed and one size of A share them."""
        return self.out / "data" / f"seed{group.seed}-a{recipe_of(study, group).a}"

    def detector(self, group: GroupConfig) -> Path:
        """The detector that a group takes, its own or another's."""
        return self.out / "detectors" / (group.detector or group.name)

    def grabcut(self, group: GroupConfig) -> Path:
        """The annotations of a group in which GrabCut's masks stand for those of B."""
        return self.out / "grabcut" / f"{group.name}.json"

    def cut(self, group: GroupConfig) -> Path:
        """Returns GrabCut's masks of the boxes that a group's detector found."""
        return self.out / "grabcut" / (group.detector or group.name)

    def cell(self, cell: Cell) -> Path:
        """The run of a cell."""
        return self.out / "cells" / cell.group.name / cell.method.name

    def regions(self, group: GroupConfig) -> Path:
        """The pooled regions of a group's detector, a folder for each kind."""
        return self.out / "regions" / (group.detector or group.name)


def cells_of(study: StudyConfig, only: Sequence[str] = ()) -> list[Cell]:
    """The cells, group by group.

    Args:
        study: all of it.
        only: cells, groups and methods by name; empty: all.

    Raises:
        BadInput: there is none of a name.
    """
    every = list(_every(study))
    for name in only:
        if not any(name in _names(cell) for cell in every):
            raise BadInput(f"--only {name}: expected a group, a method or a cell such as {every[0].name}")
    return [cell for cell in every if not only or not _names(cell).isdisjoint(only)]


def _names(cell: Cell) -> set[str]:
    return {cell.name, cell.group.name, cell.method.name}


def _every(study: StudyConfig) -> Iterator[Cell]:
    for group in study.groups:
        for method in study.methods:
            if group.methods is None or method.name in group.methods:
                yield Cell(group, method)


def owner_of(study: StudyConfig, group: GroupConfig) -> GroupConfig:
    """The group whose detector a group takes: itself, or another."""
    return next(one for one in study.groups if one.name == (group.detector or group.name))


def learner(study: StudyConfig, cell: Cell) -> Cell:
    """The cell whose run a cell scores.

    A method that sees all masks, or none, learns the same in every split of a detector. Steps after the model do not
    change its training.
    """
    plain = {"name": "", "steps": ()}
    own = cell.method.model_copy(update=plain)
    same = (one for one in study.methods if not one.steps and one.model_copy(update=plain) == own)
    cell = cell._replace(method=next(same, cell.method))
    owner = owner_of(study, cell.group)
    is_same = study.synthetic is None and cell.method.masks in ("all", "none") and owner.seed == cell.group.seed
    return cell._replace(group=owner) if is_same else cell


def recipe_of(study: StudyConfig, group: GroupConfig) -> Recipe:
    """The parameters of a group's synthetic data."""
    assert study.synthetic is not None
    plain = study.synthetic.model_dump()
    return Recipe(**{**plain, "a": group.a or plain["a"], "seed": group.seed})


def detector_config(study: StudyConfig, group: GroupConfig, places: Places) -> Config:
    """The configuration of a group's stage 1."""
    own = study.detector
    layers = [("settings", study.settings), ("detector.settings", own.settings)]
    layers.append((_of(group), _data(study, group, places)))
    return read(Config, own.recipe, settings=layers)


def cell_config(study: StudyConfig, cell: Cell, places: Places) -> Config:
    """The configuration of a cell.

    Raises:
        BadInput: settings do not fit together.
    """
    group, method = cell
    layers = [("settings", study.settings)]
    own = _data(study, group, places)
    if method.masks == "all":
        own["data"]["masks"] = "oracle" if study.synthetic is not None else "all"
    if method.masks == "none":
        own["data"]["masks"] = "none"
    if method.start == "detector":
        layers.append(("mask_settings", study.mask_settings))
        own["train"] |= {"stage": "mask", "weights": str(places.detector(group)), "strategy": "one"}
    if method.embeddings is not None:
        own["model"] = {"transfer": {"input": "embedding", "embedding": str(table_of(cell, places))}}
    layers += [(f"settings of {method.name}", method.settings), (_of(group), own)]
    config = read(Config, method.recipe, settings=layers)
    if method.masks != "grabcut":
        return config
    cut = {"annotations": str(places.grabcut(group)), "masks_b": None, "format": "coco"}
    source_of_all = config.data.train[0].model_copy(update=cut)
    data = config.data.model_copy(update={"train": (source_of_all,), "names": None, "masks": "all"})
    return config.model_copy(update={"data": data})


def table_of(cell: Cell, places: Places) -> Path:
    """The table that T reads in a control."""
    return places.out / "tables" / cell.group.name / f"{cell.method.name}.npy"


def _of(group: GroupConfig) -> str:
    return f"group {group.name}"


def _data(study: StudyConfig, group: GroupConfig, places: Places) -> Json:
    """Returns a group's settings of the data and the seeds."""
    data: Json = {"seed": group.seed}
    if group.masks is not None:
        data["masks"] = group.model_dump(mode="json")["masks"]
    if study.synthetic is not None:
        folder = places.data(study, group)
        data |= {"train": [source(folder, "train")], "val": [source(folder, "val")], "masks": "all"}
    return {"data": data, "train": {"seed": group.seed}}


def source(folder: Path, part: str) -> Json:
    """A part of synthetic data, as a configuration names it."""
    return {
        "images": str(folder / part),
        "annotations": str(folder / f"instances_{part}.json"),
        "masks_b": str(folder / f"masks_b_{part}.json"),
    }


def digest(study: StudyConfig, cell: Cell, places: Places) -> str:
    """A checksum of everything that a cell's figures depend on besides the code."""
    config = cell_config(study, cell, places)
    parts: list[object] = [_settings(config), cell.method.masks, cell.method.start, cell.method.embeddings]
    parts.append(data_facts(study, cell.group))
    if cell.method.steps:
        parts.append(list(cell.method.steps))
    if cell.method.start != "nothing":
        parts += [detector_digest(study, cell.group, places), study.regions.per_image]
    return _checksum(parts)


def detector_digest(study: StudyConfig, group: GroupConfig, places: Places) -> str:
    """Returns the same checksum for a group's detector, which does not depend on the classes that have masks."""
    owner = owner_of(study, group)
    plain = _settings(detector_config(study, owner, places))
    plain.get("data", {}).pop("masks", None)
    facts = data_facts(study, owner)
    return _checksum([plain, {key: value for key, value in facts.items() if key not in ("a", "masks")}])


def data_facts(study: StudyConfig, group: GroupConfig) -> Json:
    """Returns the facts about the data that a result's line holds."""
    if study.synthetic is not None:
        return recipe_of(study, group)._asdict()
    return {"seed": group.seed, "masks": group.model_dump(mode="json")["masks"]}


def _settings(config: Config) -> Json:
    """Returns the settings that figures depend on, without defaults: a new setting must not make old figures void."""
    plain = config.model_dump(mode="json", exclude_defaults=True)
    for name in ASIDE:
        *above, last = name.split(".")
        section = plain
        for key in above:
            section = section.get(key, {})
        section.pop(last, None)
    return plain


def _checksum(parts: list[object]) -> str:
    return files.digest(parts)[:16]
