"""Runs the cells of a study: each one's data, its group's detector, its mask branch, and what it scores."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from maskx_tf import locks
from maskx_tf.checkpoints import io
from maskx_tf.config import Config
from maskx_tf.data import opening, stats
from maskx_tf.data.dataset import Dataset
from maskx_tf.data.formats import coco_write
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples
from maskx_tf.data.threads import cores
from maskx_tf.errors import BadInput
from maskx_tf.files import Json, make_folder, write_text, writing
from maskx_tf.study import cells as cells_
from maskx_tf.study import controls, regions, results, scoring
from maskx_tf.study.cells import Cell, Places
from maskx_tf.study.config import StudyConfig
from maskx_tf.study.pooling import Regions
from maskx_tf.synthetic.generate import generate
from maskx_tf.tasks import pseudo, train
from maskx_tf.training import fit, start
from maskx_tf.training.callbacks import Hooks

# What a line says of its cell's configuration; the run folder has all of it.
SETTINGS: Any = {
    "model": {
        "family": True,
        "mask": True,
        "transfer": {"input", "layers", "activation", "init", "unit_rms", "stop_gradient"},
    },
    "train": {"stage", "steps", "batch", "rate", "weight_decay"},
}

Say = Callable[[str], None]


class StudyStopped(Exception):
    """A signal asked to stop; what was trained so far is kept."""


class Group(NamedTuple):
    """The state that the cells of a group share.

    Attributes:
        study: all of it.
        cell: any cell of the group, which says what data it sees.
        places: the folders.
        say: receives a line about each step.
    """

    study: StudyConfig
    cell: Cell
    places: Places
    say: Say

    def config(self) -> Config:
        """The configuration of a cell, with the class names."""
        return named(cells_.cell_config(self.study, self.cell, self.places))


def run(study: StudyConfig, out: Path, only: Sequence[str] = (), say: Say = lambda text: None) -> None:
    """Runs every cell that is not finished, and adds its line to the results.

    Args:
        study: what to run.
        out: the study folder.
        only: see `cells.cells_of`.
        say: receives a line about each step.

    Raises:
        StudyStopped: a signal ended the study.
        BadInput: something does not fit, or another process runs a study in the folder.
    """
    places, path = Places(out), out / results.RESULTS
    every, wanted = cells_.cells_of(study), cells_.cells_of(study, only)
    for cell in wanted:  # what cannot be is said before anything runs
        cells_.cell_config(study, cell, places)
    make_folder(out)
    with locks.locked(out / fit.LOCK):
        for place, cell in enumerate(wanted, 1):
            digest = cells_.digest(study, cell, places)
            line = results.read(path).get((cell.group.name, cell.method.name))
            if line is not None and line["digest"] == digest:
                continue
            say(f"{cell.name}, cell {place} of {len(wanted)}")
            facts = run_cell(Group(study, cell, places, say))
            say(f"{cell.name}: {scoring.in_words(facts['figures'])}")
            results.add(path, {**facts, "digest": digest})
            held = places.regions(cell.group)
            sharing = (other for other in every if places.regions(other.group) == held)
            if not any(_waits(study, other, places, path) for other in sharing):
                shutil.rmtree(held, ignore_errors=True)


def _waits(study: StudyConfig, cell: Cell, places: Places, path: Path) -> bool:
    """Whether a cell still has to run."""
    line = results.read(path).get((cell.group.name, cell.method.name))
    return line is None or line["digest"] != cells_.digest(study, cell, places)


def run_cell(group: Group) -> Json:
    """Trains and evaluates a cell; finished work is not repeated.

    Returns:
        The facts of its line in the results.
    """
    study, cell, places, say = group
    prepare_data(group)
    if cell.method.start != "nothing":
        train_detector(group)
    begin = time.monotonic()
    classes_a = a_of(group)
    if cell.method.masks == "grabcut":
        cut_masks(group)
    config = group.config()
    if cell.method.start == "grabcut":
        folder = places.detector(cell.group)
    else:
        own = group._replace(cell=cells_.learner(study, cell))
        folder = places.cell(own.cell)
        fresh(folder, cells_.digest(study, own.cell, places), say)
        train_cell(own, own.config(), folder, a_of(own))
    model = io.load(folder / fit.MODEL).model
    figures = scoring.of_parts(study, cell, places, config, model, classes_a)
    del model
    keras.backend.clear_session()
    gc.collect()
    return {
        "group": cell.group.name,
        "method": cell.method.name,
        "data": cells_.data_facts(study, cell.group),
        "classes": len(config.model.class_names),
        "a": len(classes_a),
        "settings": config.model_dump(mode="json", include=SETTINGS),
        "figures": figures,
        "versions": fit.versions(config),
        "seconds": round(time.monotonic() - begin, 1),
    }


def train_cell(group: Group, config: Config, folder: Path, classes_a: frozenset[str]) -> None:
    """The run of a cell, unless it is finished."""
    if (folder / fit.SUMMARY).exists():
        return
    cell, places = group.cell, group.places
    if cell.method.embeddings is not None:
        unit_rms = config.model.transfer.unit_rms
        rows = controls.make(cell.method.embeddings, places.detector(cell.group), cell.group.seed, unit_rms)
        controls.write(cells_.table_of(cell, places), rows)
    dataset = opening.training_set(config.data, config.model.class_names)
    meta = train.meta_of(dataset, classes_a)
    if cell.method.start == "detector":
        batches = region_batches(config, *pooled(group, config, dataset))
    else:
        batches = train.image_batches(config, dataset)
    _fit(config, folder, batches, meta, group.say)
    tidy(folder)


def tidy(folder: Path) -> None:
    """Removes what a finished run no longer needs."""
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)


def named(config: Config) -> Config:
    """The configuration with the class names of the data."""
    names = config.model.class_names or opening.training_set(config.data).class_names
    return config.with_classes(names)


def prepare_data(group: Group) -> None:
    """Generates a group's synthetic data."""
    if group.study.synthetic is None:
        return
    folder = group.places.data(group.study, group.cell.group)
    recipe = cells_.recipe_of(group.study, group.cell.group)
    fresh(folder, repr(recipe), group.say)
    if not folder.exists():
        group.say(f"drawing {recipe.images} scenes, seed {recipe.seed}, {recipe.a} classes in A")
        generate(recipe, folder, workers=max(1, cores()))


def train_detector(group: Group) -> None:
    """Stage 1 of a group, unless it is finished."""
    study, places = group.study, group.places
    owner = cells_.owner_of(study, group.cell.group)
    folder = places.detector(owner)
    fresh(folder, cells_.detector_digest(study, owner, places), group.say)
    if (folder / fit.SUMMARY).exists():
        return
    own = group._replace(cell=Cell(owner, group.cell.method))
    prepare_data(own)
    config = named(cells_.detector_config(study, owner, places))
    dataset = opening.training_set(config.data, config.model.class_names)
    group.say(f"the detector of {owner.name}")
    _fit(config, folder, train.image_batches(config, dataset), train.meta_of(dataset, ()), group.say)
    tidy(folder)
    keras.backend.clear_session()


def _fit(config: Config, folder: Path, batches: fit.BatchesFrom, meta: Json, say: Say) -> None:
    with pipeline.bad_input():
        outcome = fit.run(config, folder, batches, meta=meta, resume=True, hooks=Hooks(say=say))
    if outcome.stopped_by:
        raise StudyStopped


def region_batches(config: Config, held: Regions, masks: regions.VisibleMasks) -> fit.BatchesFrom:
    """Batches of regions, for one device.

    Raises:
        BadInput: the mask branch learns from labelled points, which regions do not keep.
    """
    if "points" in config.model.mask.box_losses:
        raise BadInput("model.mask.box_losses: expected no points in a study, whose regions do not keep them")
    with_boxes = bool(config.model.mask.box_losses)

    def batches(first: int, worker: int, workers: int, devices: int) -> tf.data.Dataset:
        del worker, workers, devices
        return regions.batches_of(
            held, masks, batch=config.train.batch, seed=config.data.seed, start=first, with_boxes=with_boxes
        )

    return batches


def a_of(group: Group) -> frozenset[str]:
    """The names of a group's A: the classes that have masks for everyone but the oracle."""
    return stats.a_set(_seen(group), "all")


def _seen(group: Group) -> Dataset:
    """Returns a group's training data as every method but the oracle may see it."""
    plain = group.cell.method.model_copy(update={"masks": "a"})
    config = group._replace(cell=group.cell._replace(method=plain)).config()
    return opening.training_set(config.data, config.model.class_names)


def cut_masks(group: Group) -> None:
    """Writes a group's annotations with GrabCut's masks for B."""
    path, facts = group.places.grabcut(group.cell.group), cells_.data_facts(group.study, group.cell.group)
    fresh(path, repr(facts), group.say)
    if path.exists():
        return
    group.say("making masks of the boxes of B with GrabCut")
    plain = cells_.cell_config(group.study, group.cell, group.places)
    coco_write.write(pseudo.fill(_seen(group), pseudo.GrabCutMaker()).dataset, path, Path(plain.data.train[0].images))


def pooled(group: Group, config: Config, dataset: Dataset) -> tuple[Regions, regions.VisibleMasks]:
    """The regions that a cell learns from, with the masks that its policy shows."""

    def batches() -> tf.data.Dataset:
        held = examples.from_dataset(dataset, cache_mib=0)
        return pipeline.evaluation(held, config.data, config.model.input, batch=8)

    with pipeline.bad_input():
        held = regions.get_or_make(
            group.places.regions(group.cell.group) / regions.kind_of(config),
            regions.mark_of(config),
            lambda: start.make(config),
            batches,
            images=len(dataset.images),
            per_image=group.study.regions.per_image,
            limit_mib=group.study.regions.limit_mib,
            mirror=config.data.flip,
            seed=group.cell.group.seed,
            say=group.say,
        )
        return held, regions.with_masks(held, batches(), config.model.mask_side)


def fresh(folder: Path, digest: str, say: Say) -> None:
    """Removes a folder or file that was made with other settings, which a file next to it records."""
    path = folder.with_name(f"{folder.name}.digest")
    with writing(folder):
        if folder.exists() and not (path.exists() and path.read_text(encoding="utf-8") == digest):
            say(f"{folder}: was made with other settings; it is made again")
            if folder.is_dir():
                shutil.rmtree(folder)
            else:
                folder.unlink()
    write_text(path, digest)
